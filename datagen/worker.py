"""Set-up of our own worker processes, loaded by Dask as a preload: Ctrl-C in the terminal is for the client to handle."""

import signal

signal.signal(signal.SIGINT, signal.SIG_IGN)

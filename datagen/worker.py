"""Set-up of our own worker processes, loaded by Dask as a preload.

Processes are the unit of parallelism, so a worker keeps to one thread; and Ctrl-C in the terminal is for the client to handle.
"""

import signal

import zarr

signal.signal(signal.SIGINT, signal.SIG_IGN)
zarr.config.set({"threading.max_workers": 1})

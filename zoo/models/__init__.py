"""The codecs, one page each."""

"""Compression jobs over REST: each a process of its own, its whole state in files.

The service never imports what compresses: a job is the command line, run by `runner.py`, which outlives the
server that started it. Any worker of any later server can say how a job is doing.
"""

"""Deterministic simulation: whole clusters in one process, on a virtual clock, a virtual network and faulty disks.

The consensus, log, state and membership code is the product's own; only the event loop, the clock, the peer transport,
the storage threads and the system calls that reach a disk are stood in for. Everything derives from one seed. See
docs/safety.md for what is checked and how to run it.
"""

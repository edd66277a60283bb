"""Deterministic simulation: whole clusters in one process, on a virtual clock, a virtual network and faulty disks.

The consensus, log, state, membership and peer connection code is the product's own. Only the event loop, the clock, the
byte streams between nodes, the storage threads and the system calls that reach a disk are simulated. Everything derives
from one seed. verification/simulation/DESIGN.md explains how it works; docs/safety.md says what is checked and how to run it.
"""

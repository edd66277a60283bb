"""Faults for clusters of real processes: kills, pauses, a broken network, full disks, members that change.

Each fault harms a cluster while a workload runs, undoes the harm, and returns. The caller measures.
"""

from verification.nemesis.catalogue import FAULTS, faults_named, inflict
from verification.nemesis.fault import Fault

__all__ = ["FAULTS", "Fault", "faults_named", "inflict"]

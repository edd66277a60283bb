"""Plain pysyncobj through the same simulated faults, to compare honestly with what metasrv makes of it."""

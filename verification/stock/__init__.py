"""Plain pysyncobj under the same simulated faults, to compare it honestly with metasrv."""

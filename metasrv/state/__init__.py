"""The replicated state of a node: pure rules over one SQLite file.

`machine.py` applies log entries; metasrv/state/DESIGN.md says where everything else stands, and why. Knows nothing of
pysyncobj, HTTP or gRPC.
"""

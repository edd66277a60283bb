"""The replicated state of a node: pure rules over one SQLite file.

`machine.py` applies log entries; `transaction.py` and `expiry.py` hold the rules, `effects.py` what one entry does
while its transaction is open, `store.py` the tables, `watch.py` the streams of changes, `snapshot.py` the copies.
Knows nothing of pysyncobj, HTTP or gRPC.
"""

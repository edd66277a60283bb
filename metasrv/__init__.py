"""metasrv: a Raft meta-service cluster, wire-compatible with Databend's meta service."""

__version__ = "0.3.0.dev0"

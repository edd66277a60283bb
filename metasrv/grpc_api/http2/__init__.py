"""The server's side of gRPC over HTTP/2, on the event loop and in no other thread.

Knows frames, header blocks, flow control and gRPC's framing; knows no method, no message type and nothing of a node.
ARCHITECTURE.md says why it is here and not a library: what a call costs.
"""

"""The server's side of gRPC over HTTP/2 (RFC 9113), on the event loop and in no other thread.

Knows frames, field blocks, flow control and gRPC's messages; knows no method, no protobuf and nothing of a node.
metasrv/grpc_api/http2/DESIGN.md says why it exists, how a call passes through it, and where to look for what.
"""

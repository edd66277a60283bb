"""The wire contract `meta.proto` and its generated Python classes; everything but the `.proto` is generated."""

"""Fuzzing: hostile bytes for everything that reads what others wrote; `make fuzz`, docs/fuzzing.md."""

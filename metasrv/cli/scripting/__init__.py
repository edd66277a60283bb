"""Lua scripts of `metactl lua`: the interpreter, what it offers, and what it asks of the services."""

"""Planted defects: each must be caught by the simulator, or the simulator proves nothing.

A mutant replaces methods of the product's classes within a `with` block. No product code knows of it.
"""

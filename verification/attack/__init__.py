"""Attacks on a running cluster beside a load whose answers are checked (`make attack`). For tests only."""

"""Recipes on a session: lock, election, counter, barriers, queue. `blocking` has the blocking form of each."""

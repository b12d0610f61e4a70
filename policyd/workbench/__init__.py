"""Policies tried out away from a live host: replay, vectors with coverage, and why a policy did or did not match."""

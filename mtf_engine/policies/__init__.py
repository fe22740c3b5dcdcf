"""Policies: their networks, what is written of them, and the bundle that a server loads."""

"""A policy of somebody else, as its package might look, and its adapter."""

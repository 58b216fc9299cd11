"""Comparison of finished runs: what differs between them, how they score, how sure that is."""

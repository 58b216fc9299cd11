"""Ablations (Tables 1 and 2 of Luo et al. 2020) from finished runs: tables and figures."""

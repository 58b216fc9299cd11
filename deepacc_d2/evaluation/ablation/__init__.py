"""The ablation of Table 1 (Luo et al. 2020) from finished runs: tables and figures."""

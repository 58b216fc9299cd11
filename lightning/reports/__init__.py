"""What sweeps and ablations found, as tables and pages."""

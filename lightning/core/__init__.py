"""What every program needs: command line, config, processes, what a run was made of."""

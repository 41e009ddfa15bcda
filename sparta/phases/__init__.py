"""The steps of an iteration. Each reads records and writes records; none knows whether SLURM exists."""

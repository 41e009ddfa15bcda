"""The steps of an iteration. Each reads and writes records; none depends on SLURM."""

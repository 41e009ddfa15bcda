"""The suite on SLURM: cluster profiles, jobs, and SLURM's commands."""

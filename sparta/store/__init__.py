"""The state directory: what has happened is what is on disk. Files are touched here and nowhere else."""

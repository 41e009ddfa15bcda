"""The suite on SLURM: profiles of clusters, jobs, what the controller says of them."""

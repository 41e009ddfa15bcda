"""The members of the initial pool: their location, checks, GPU memory, training data and download."""

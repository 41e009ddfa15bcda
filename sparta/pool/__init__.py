"""The members of the initial pool: where they lie, whether they fit, how much GPU memory, their data, their download."""

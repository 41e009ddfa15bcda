"""Which phases make an iteration, in which order; registry.py finds them by name."""

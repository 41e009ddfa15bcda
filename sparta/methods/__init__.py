"""Methods, a file each: which phases make an iteration, who learns in it, what is said of it. registry.py finds them by name."""

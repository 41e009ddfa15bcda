"""Methods, one file each: the phases of an iteration, who learns in it, and its summary. registry.py finds them by name."""

"""Data sets: instructions to align on, items to score on, and grading of answers. registry.py lists them by name."""

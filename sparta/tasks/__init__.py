"""Data sets: instructions to align on, items to score on, and how an answer is graded. registry.py knows them by name."""

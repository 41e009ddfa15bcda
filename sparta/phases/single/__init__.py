"""Phases of methods that align one model: it answers each prompt several times, the answers are compared, and it learns from the best and the worst."""

"""Phases of methods that align one model: it answers each prompt several times, the answers are compared, and the best and the worst make a pair."""

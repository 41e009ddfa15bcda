"""Grids of runs: a study file, its cells, what they share, and how their scores compare."""

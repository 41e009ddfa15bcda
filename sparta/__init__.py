"""Sparta Alignment: a pool of language models duels, judges itself and learns from the outcome (arXiv 2506.04721)."""

__version__ = "0.1.0"

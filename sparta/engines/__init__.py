"""Text in, text out. `open_engine` (factory.py) gives the process's engine; phases know `base` alone."""

"""Text in, text out. `open_engine` (factory.py) gives this process's engine for a recipe; phases know only `base`."""

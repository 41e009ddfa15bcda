"""Text in, text out. `open_engine` (factory.py) returns the process's engine; phases import only `base`."""

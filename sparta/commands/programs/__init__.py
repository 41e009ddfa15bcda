"""The command lines, one module a command: its options, and what it does with them.

A module exports one `Program`. At the top, modules import only what --help needs; everything else is imported inside functions.
"""

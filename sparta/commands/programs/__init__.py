"""The command lines, one module a command: its options, and what it does with them.

A module exports one `Program`. Modules import at the top only what it takes to print help; the work is imported where it is done.
"""

"""Check a whole state: python jobs/verify.py [state]. Exit status: 0 if nothing is wrong, 1 otherwise."""

import sys

from sparta.commands.cli import run_program

if __name__ == "__main__":
    sys.exit(run_program("verify"))

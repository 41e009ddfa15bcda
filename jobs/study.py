"""Run a grid of runs: python jobs/study.py table3, or a study file. The same command continues it."""

import sys

from sparta.commands.cli import run_program

if __name__ == "__main__":
    sys.exit(run_program("study"))

"""Show where a run stands: python jobs/status.py [state]. Exit status: 0 done, 1 failed, 3 in progress."""

import sys

from sparta.commands.cli import run_program

if __name__ == "__main__":
    sys.exit(run_program("status"))

"""Make a run's initial pool, and nothing more: python jobs/init_pool.py --recipe R --state DIR. A launch makes it too."""

import sys

from sparta.commands.cli import run_program

if __name__ == "__main__":
    sys.exit(run_program("init_pool"))

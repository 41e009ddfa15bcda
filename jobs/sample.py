"""Sample several answers of a run's models to each item: python jobs/sample.py [state]"""

import sys

from sparta.commands.cli import run_program

if __name__ == "__main__":
    sys.exit(run_program("sample"))

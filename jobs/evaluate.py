"""Score a run's models on its tasks: python jobs/evaluate.py [state]"""

import sys

from sparta.commands.cli import run_program

if __name__ == "__main__":
    sys.exit(run_program("evaluate"))

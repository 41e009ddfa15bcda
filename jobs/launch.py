"""Start or continue a run of Sparta Alignment: python jobs/launch.py --iters 8"""

import sys

from sparta.commands.cli import run_program

if __name__ == "__main__":
    sys.exit(run_program("launch"))

"""Prepare the data of tasks, and of experts: python jobs/prepare_data.py gsm8k math_easy, or all subsets"""

import sys

from sparta.commands.cli import run_program

if __name__ == "__main__":
    sys.exit(run_program("prepare_data"))

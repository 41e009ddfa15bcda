"""Export one model of a run for PEFT, transformers, vLLM or the hub: python jobs/export.py state/mine"""

import sys

from sparta.commands.cli import run_program

if __name__ == "__main__":
    sys.exit(run_program("export"))

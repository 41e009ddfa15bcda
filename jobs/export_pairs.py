"""Write preference pairs in TRL's format: python jobs/export_pairs.py state/iter_05 --out pairs.jsonl"""

import sys

from sparta.commands.cli import run_program

if __name__ == "__main__":
    sys.exit(run_program("export_pairs"))

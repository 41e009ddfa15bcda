"""Show a recipe with every key, or what its keys mean: python jobs/recipe.py show --recipe paper/gsm8k"""

import sys

from sparta.commands.cli import run_program

if __name__ == "__main__":
    sys.exit(run_program("recipe"))

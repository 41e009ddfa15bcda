"""Names that become paths, where the checkout keeps things, and what a person may have meant by a wrong name."""

import difflib
import re
from collections.abc import Iterable
from pathlib import Path

from sparta.errors import SpartaError

PACKAGE = Path(__file__).parent
CHECKOUT = PACKAGE.parent
RECIPES = PACKAGE / "recipes"
PROFILES = CHECKOUT / "slurm" / "profiles"
MODELS = CHECKOUT / "state" / "models"
"""What `--fetch` brings from the hub. Jobs run from a copy of the package, beside which there is none: see `Recipe.placed`."""
DATASETS = CHECKOUT / "state" / "datasets"
"""What jobs/prepare_data.py makes."""

MODEL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")


def check_model_name(name: str) -> str:
    """`name`, when it may become a file name: letters, digits, '.', '_' and '-', at most 64, no leading '.' or '-', no '..'.

    Raises SpartaError otherwise.
    """
    if MODEL_NAME.fullmatch(name) is None or ".." in name:
        raise SpartaError(
            f"The model name {name[:80]!r} cannot be used in file names: rename it in the recipe with at most 64 letters, "
            "digits, '.', '_' or '-', without '..' and beginning with a letter, digit or '_'."
        )
    return name


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The one of `known` that a person may have meant by `name`; None where none is near."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), None)


def hint(name: str, known: Iterable[str], what: str) -> str:
    """The end of a sentence about an unknown `name`: the nearest of `known`, or all of them, which are `what`."""
    known = list(known)
    near = nearest(name, known)
    return f"did you mean {near}?" if near else f"known {what}: {', '.join(known)}"

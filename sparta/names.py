"""Names that become paths, where things lie, and the commands that messages suggest."""

import difflib
import re
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from sparta.errors import SpartaError

PACKAGE = Path(__file__).parent
INSTALLED = (PACKAGE / "slurm").is_dir()
"""Whether the package came from a wheel. A wheel holds slurm/ inside the package; in a checkout it lies beside the package."""
HOME = Path.cwd() if INSTALLED else PACKAGE.parent
"""The folder of state/: the checkout; for an installed package the working directory."""
RECIPES = PACKAGE / "recipes"
SLURM = PACKAGE / "slurm" if INSTALLED else HOME / "slurm"
PROFILES = SLURM / "profiles"
"""The cluster profiles that come with the suite."""
PROFILE_FOLDERS = tuple(dict.fromkeys((HOME / "slurm" / "profiles", PROFILES)))
"""Where a profile is looked up by name, in this order: a person's own, then PROFILES. In a checkout they are one folder."""
MODELS = HOME / "state" / "models"
"""What `--fetch` brings from the hub. Jobs run from a copy of the package, beside which there is none: see `Recipe.placed`."""
DATASETS = HOME / "state" / "datasets"
"""What the command prepare_data writes."""

DEFAULT_STATE = Path("state")
DEFAULT_RECIPE = "toy"
ClusterKind = Literal["auto", "inline", "local", "slurm"]

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


def installed_by(requirements: Literal["base", "gpu"]) -> str:
    """The pip command that installs what the suite needs: `base` on every machine, `gpu` with the inference engine for GPUs."""
    if INSTALLED:
        return quoted(
            "pip", "install", "sparta-alignment[vllm]" if requirements == "gpu" else "sparta-alignment"
        )
    return f"pip install -r requirements/{requirements}.txt"


def quoted(*words: object) -> str:
    """`words` as one would type them into a shell: paths with spaces or quotes stay one word."""
    return shlex.join(map(str, words))


def suggested(program: str, *arguments: object) -> str:
    """The command line that runs `program` with `arguments`, quoted for a shell, for a message that suggests it.

    program: its name under jobs/, for example init_pool. The command is spelled `python jobs/init_pool.py` in a checkout, and
    `sparta init-pool` where the package is installed or the person typed `sparta`.
    """
    if INSTALLED or Path(sys.argv[0]).stem == "sparta":
        return quoted("sparta", program.replace("_", "-"), *arguments)
    return quoted("python", f"jobs/{program}.py", *arguments)

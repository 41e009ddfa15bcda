"""Names that become paths, the locations of folders, and the commands that messages suggest."""

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
"""Whether the package was installed from a wheel, which has slurm/ inside the package; in a checkout slurm/ is beside it."""
HOME = Path.cwd() if INSTALLED else PACKAGE.parent
"""The folder that holds state/: the checkout, or the working directory for an installed package."""
RECIPES = PACKAGE / "recipes"
STUDIES = RECIPES / "studies"
"""The built-in study files; all other YAML files of RECIPES are recipes."""
SLURM = PACKAGE / "slurm" if INSTALLED else HOME / "slurm"
PROFILES = SLURM / "profiles"
"""The built-in cluster profiles."""
PROFILE_FOLDERS = tuple(dict.fromkeys((HOME / "slurm" / "profiles", PROFILES)))
"""The folders where profiles are looked up by name, in this order: the user's, then PROFILES. In a checkout they are the same."""
MODELS = HOME / "state" / "models"
"""Models fetched from the hub by `--fetch`. Jobs run from a copy of the package, without this folder beside it: see `Recipe.placed`."""
DATASETS = HOME / "state" / "datasets"
"""The output of the command prepare_data."""

DEFAULT_STATE = Path("state")
DEFAULT_RECIPE = "toy"
ClusterKind = Literal["auto", "inline", "local", "slurm"]

MODEL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")


def check_model_name(name: str) -> str:
    """`name`, if it is valid in file names: at most 64 letters, digits, '.', '_' and '-', no leading '.' or '-', no '..'.

    Raises SpartaError otherwise.
    """
    if MODEL_NAME.fullmatch(name) is None or ".." in name:
        raise SpartaError(
            f"The model name {name[:80]!r} cannot be used in file names: rename it in the recipe with at most 64 letters, "
            "digits, '.', '_' or '-', without '..' and beginning with a letter, digit or '_'."
        )
    return name


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The entry of `known` most similar to `name`; None if none is similar."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), None)


def hint(name: str, known: Iterable[str], what: str) -> str:
    """The end of an error message about an unknown `name`: the most similar of `known`, or all of them. what: their plural, "recipes"."""
    known = list(known)
    near = nearest(name, known)
    return f"did you mean {near}?" if near else f"known {what}: {', '.join(known)}"


def installed_by(requirements: Literal["base", "gpu", "embeddings"]) -> str:
    """The pip command that installs the dependencies: `base` for every machine, `gpu` also with the inference engine for GPUs, `embeddings` those of
    sentence embeddings.
    """
    if INSTALLED:
        extra = {"base": "", "gpu": "[vllm]", "embeddings": "[embeddings]"}[requirements]
        return quoted("pip", "install", f"sparta-alignment{extra}")
    return f"pip install -r requirements/{requirements}.txt"


def quoted(*words: object) -> str:
    """`words` as a command line, quoted for a shell."""
    return shlex.join(map(str, words))


def suggested(program: str, *arguments: object) -> str:
    """The command line that runs `program` with `arguments`, quoted for a shell, for use in messages.

    program: its name under jobs/, such as init_pool. The command is `python jobs/init_pool.py` in a checkout, and `sparta init-pool` if
    the package is installed or the user typed `sparta`.
    """
    if INSTALLED or Path(sys.argv[0]).stem == "sparta":
        return quoted("sparta", program.replace("_", "-"), *arguments)
    return quoted("python", f"jobs/{program}.py", *arguments)

"""Fetches of a recipe's models from a hub on loopback, each in a process of its own: the hub's library reads its variables when it is imported."""

import json
import subprocess
import sys
from pathlib import Path

from support.hub_server import Hub
from support.scripted_run import DEADLINE, ROOT, quiet

FETCH = """
import json, sys
from sparta.screen import Screen
from sparta.pool.hub_download import fetch
from sparta.errors import SpartaError
from sparta.recipes.schema import Recipe
try:
    fetch(Recipe.model_validate(json.loads(sys.argv[1])), sys.argv[2] == "update", Screen())
except SpartaError as error:
    sys.exit(f"error: {error}")
"""


def recipe(
    folder: Path,
    base: str = "hub:org/base",
    adapter: str = "hub:org/ada",
    judge: dict[str, str] | None = None,
    data: dict[str, object] | None = None,
    embeddings: str | None = None,
    **pool: object,
) -> str:
    models = [{"name": name, "adapter": adapter} for name in ("ada", "bea", "cem")]
    tree = {
        "name": "x",
        "pool": {"base": base, "models": models, "folder": str(folder), **pool},
        "data": data or {"task": "toy"},
        "evaluation": {"judge": judge, "embeddings": embeddings},
    }
    return json.dumps(tree)


def start(
    hub: Hub, folder: Path, *, update: bool = False, environment: dict[str, str] | None = None, **pool: object
) -> "subprocess.Popen[str]":
    # Of the environment nothing that says how to reach the hub.
    own = {key: value for key, value in quiet().items() if not key.startswith("HF_")}
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, recipe(folder, **pool), "update" if update else ""],  # type: ignore[arg-type]
        env={**own, "HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "cache"), **(environment or {})},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(hub: Hub, folder: Path, **options: object) -> str:
    """The output of a successful fetch."""
    process = start(hub, folder, **options)  # type: ignore[arg-type]
    out, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, err
    return out


def refused(hub: Hub, folder: Path, **options: object) -> str:
    """The error of a failed fetch."""
    process = start(hub, folder, **options)  # type: ignore[arg-type]
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 1 and "Traceback" not in err, err
    [line] = [line for line in err.splitlines() if line.startswith("error: ")]
    return line.removeprefix("error: ")


def source(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "source.json").read_text())
    return found


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}

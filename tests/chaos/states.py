"""What a state comes to, and what of it must be there at any moment, whatever the disk did."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from sparta.commands.begin import check_state
from sparta.store.layout import StateDir
from sparta.store.run import Run
from sparta.store.temporaries import is_temporary

UNSEEN = ("jobs", "superseded", "looks.json")
"""What no result depends on, is looked at by itself (`superseded`), or is valid or not (`looks.json`, by `valid`)."""
MEASURED = ("stats.json", "log.jsonl", "report.json")
"""Measurements, as the page of the state names them."""
OF_ITS_OWN = ("run_id", "created", "day")
"""What every run has otherwise in its run.json."""


def contents(state: Path) -> dict[str, object]:
    """What a state comes to: bytes of whole files, sets of rows of shards, without measurements, times and identities."""
    found: dict[str, object] = {}
    for path in _files(state):
        name = str(path.relative_to(state))
        if path.relative_to(state).parts[0] in UNSEEN or path.name in MEASURED:
            continue
        if name == "run.json":
            found[name] = _without(path.read_bytes(), *OF_ITS_OWN)
        elif path.name.startswith("a") and path.suffix == ".jsonl":
            rows = found.setdefault(str(Path(name).parent), set())
            assert isinstance(rows, set)
            rows |= {_without(line, "seconds") for line in _lines(path) if line.endswith(b"\n")}
        elif path.name == "looks.jsonl":
            found[name] = [_without(line, "time") for line in _lines(path)]
        else:
            found[name] = path.read_bytes()
    return found


def set_aside(state: Path) -> dict[str, set[bytes]]:
    """What lies in superseded/, whenever it was put there, by its name in the state."""
    found = defaultdict(set)
    for path in _files(state / "superseded"):
        found[str(Path(*path.relative_to(state / "superseded").parts[1:]))].add(path.read_bytes())
    return found


def difference(expected: dict[str, object], found: dict[str, object]) -> str:
    """The files in which two states differ; "" where they are equal."""
    names = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
    return f"another state: {', '.join(names)}" if names else ""


def not_set_aside(expected: dict[str, set[bytes]], found: dict[str, set[bytes]]) -> str:
    """What an undisturbed command sets aside and this one has not; more does no harm."""
    names = [name for name, content in expected.items() if not content <= found.get(name, set())]
    return f"not in superseded/: {', '.join(names)}" if names else ""


def valid(state: Path) -> str:
    """What is wrong with the committed iterations of `state`, by the suite's own account; "" where nothing is, or there is no run yet."""
    if not (state / "run.json").exists():
        return ""
    try:
        check_state(Run.open(StateDir(state)))
    except Exception as error:
        return str(error)
    return ""


def committed_bytes(place: Path) -> dict[str, str]:
    """Digest of every file below `place` that must never be lost, with its name: of committed iterations, and what was seen of test splits."""
    folders = [
        path.parent
        for path in place.rglob("MANIFEST.json")
        # A copy that is being made is not committed before its folder has its name.
        if not any(is_temporary(part) for part in path.relative_to(place).parts)
    ]
    kept = [path for folder in folders for path in _files(folder) if path.name not in MEASURED]
    looks = [path for path in place.rglob("evals/looks.jsonl") if path.is_file()]
    return {_digest(path): str(path.relative_to(place)) for path in (*kept, *looks)}


def lost(before: dict[str, str], place: Path) -> str:
    """Files of `before` whose bytes are nowhere below `place` any more."""
    there = {_digest(path) for path in _files(place)} if before else set()
    names = [name for digest, name in before.items() if digest not in there]
    return f"lost: {', '.join(names)}" if names else ""


def leftovers(place: Path) -> list[str]:
    """What killed writers have left below `place`: temporary files and folders, and what lies beside the baton of a lock that is free."""
    temporary = [path for path in place.rglob("*") if is_temporary(path.name)]
    locks = [path for path in place.glob("*/jobs/lock/*") if path.name != "free"]
    return sorted({str(path.relative_to(place)) for path in (*temporary, *locks)})


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and not is_temporary(path.name))


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _without(text: bytes, *fields: str) -> str:
    """A JSON object without these fields, or what else is there."""
    try:
        row = json.loads(text)
    except ValueError:
        return repr(text)
    return json.dumps({field: value for field, value in row.items() if field not in fields}, sort_keys=True)

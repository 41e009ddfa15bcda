"""Derived files made again: plans, results, preference pairs, rankings and standings follow from rows and earlier files alone.

The steps of an iteration run once more, in a folder of their own that holds links to everything they read. What they write there must equal
what the state has. It is the code that made the files, so nothing is said twice; a verifier that trusts nobody runs a release that it trusts.
"""

import json
import tempfile
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from sparta.errors import SpartaError
from sparta.phases.base import ArrayPhase, Phase, Step
from sparta.store import files
from sparta.store.disk import present
from sparta.store.layout import StateDir
from sparta.store.run import Run
from sparta.verify.finding import Finding

CHECK = "derived files"


def differences_when_redone(run: Run, t: int, phases: Sequence[Phase]) -> Iterator[Finding]:
    """What differs in iteration t if the steps among `phases` that are done are done again. Writes nothing into the state."""
    steps = [phase for phase in phases if isinstance(phase, Step) and phase.derives and phase.done(run, t)]
    with tempfile.TemporaryDirectory(prefix="sparta-verify-") as folder:
        again = _linked(run, t, phases, Path(folder))
        for step in steps:
            try:
                step.execute(again, t)
            except SpartaError as error:
                what = str(error).replace(folder, str(run.state.root))
                yield Finding(CHECK, f"{step.name} cannot be done again: {what}", t)
                return
        for made in sorted(again.iteration(t).root.iterdir()):
            if made.is_symlink() or made == again.iteration(t).stats:
                continue
            stored = run.iteration(t).root / made.name
            if not present(stored):
                yield Finding(CHECK, f"{stored} is missing: restore it from a copy", t)
            elif (difference := _difference(stored, made)) is not None:
                yield Finding(
                    CHECK,
                    f"{stored} is not what its rows give: {difference}; restore the iteration from a copy, or go back to the one before with --resume",
                    t,
                )


def _linked(run: Run, t: int, phases: Sequence[Phase], folder: Path) -> Run:
    """`run` as seen from `folder`: its data, earlier iterations and rows are links, and derived files of iteration t are missing."""
    state = StateDir(folder)
    again = Run(state, run.recipe, run.info)
    (folder / run.state.instructions.parent.name).symlink_to(run.state.instructions.parent.absolute())
    for earlier in range(t):
        state.iteration(earlier).root.symlink_to(run.iteration(earlier).root.absolute())
    state.iteration(t).root.mkdir()
    parts = (part for phase in phases if isinstance(phase, ArrayPhase) for part in phase.parts)
    for shards in {part.folder(run, t) for part in parts}:
        if shards.is_dir():
            (state.iteration(t).root / shards.name).symlink_to(shards.absolute())
    return again


def _difference(stored: Path, made: Path) -> str | None:
    """Where the two files first differ, in words; None if they are equal."""
    if files.sha256_file(stored) == files.sha256_file(made):
        return None
    if stored.suffix != ".jsonl":
        return _in_words("it has", stored.read_bytes(), made.read_bytes())
    with stored.open("rb") as ours, made.open("rb") as theirs:
        for number, (one, other) in enumerate(zip_longest(ours, theirs), start=1):
            if one is None or other is None:
                return f"it has {'fewer' if one is None else 'more'} than the {number - 1} rows that it shares with them"
            if difference := _in_words(f"line {number} has", one, other):
                return difference
    return None


def _in_words(begin: str, stored: bytes, made: bytes) -> str | None:
    try:
        found = _first_difference(json.loads(stored), json.loads(made))
    except ValueError:
        return f"{begin} text that is no JSON"
    return f"{begin} {found}" if found else None


def _first_difference(stored: Any, made: Any, at: str = "") -> str | None:
    """The first difference of two JSON values. A key with null may be missing in `stored`: earlier versions did not write all of them."""
    if isinstance(stored, dict) and isinstance(made, dict):
        pairs = [(f"{at}.{key}" if at else key, stored.get(key), made.get(key)) for key in {**made, **stored}]
    elif isinstance(stored, list) and isinstance(made, list) and len(stored) == len(made):
        pairs = [(f"{at}[{place}]", *both) for place, both in enumerate(zip(stored, made, strict=True))]
    else:
        same = stored == made
        return None if same else f"{at} {_short(stored)}, and it should be {_short(made)}".strip()
    found = (_first_difference(one, other, name) for name, one, other in pairs)
    return next((difference for difference in found if difference), None)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."

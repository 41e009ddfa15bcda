"""Faults of a disk, one a run: python tests/chaos/inject.py --faults 500 --seed 0

Each takes a scene (a command on a small scripted run), lets one passage of it fail, and runs the same command again until it ends well. There may
be no traceback, the state must be the one that an undisturbed command makes, and nothing half-written may be left. A fault that was printed is
repeated with --only "SCENE: FAULT".
"""

import argparse
import random
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from chaos.scenes import Scene, Workshop  # noqa: E402
from chaos.shim import KINDS, THIRDS, Fault  # noqa: E402
from chaos.states import (  # noqa: E402
    committed_bytes,
    contents,
    difference,
    leftovers,
    lost,
    not_set_aside,
    set_aside,
    valid,
)

SHARES = {
    "begin": 10, "experts": 4, "pool": 2, "back": 4, "branch": 4, "score": 4, "look": 2, "watch": 2, "export": 2, "end": 3, "parts": 2,
}  # fmt: skip
"""How often a scene has its turn."""
TRIES = 3
"""A command may need so many until it ends well, as one after a fault may meet a second one or not see all yet."""


@dataclass(frozen=True)
class Reference:
    """A scene undisturbed: its passages, what its state comes to and has set aside, what it printed, and the file that it made."""

    passages: tuple[tuple[str, str], ...]
    contents: dict[str, object]
    aside: dict[str, set[bytes]]
    out: str
    made: bytes


def reference(workshop: Workshop, scene: Scene) -> Reference:
    """The scene without a fault."""
    place = workshop.place(f"reference-{scene.name}")
    scene.start(place)
    done = workshop.run(scene, place, count=not scene.processes)
    wrong = done.complaint(scene, place) or scene.after(place)
    assert done.status == scene.status and not wrong, (scene.name, wrong, done.err)
    state = place / scene.state
    return Reference(done.passages, contents(state), set_aside(state), done.out, _made(scene, place))


def _made(scene: Scene, place: Path) -> bytes:
    return (place / scene.makes).read_bytes() if scene.makes else b""


def drawn(dice: random.Random, kinds: Sequence[str], scene: Scene, known: Reference) -> Fault:
    """A fault of one of `kinds` for `scene`, at a passage to which it can come."""
    if scene.processes:
        # Its passages are not numbered: tasks and driver have their own.
        kind, role = dice.choice(kinds), dice.choice(("task", "driver"))
        return Fault("", kind, dice.randint(1, 120 if role == "task" else 1500), role=role)
    kind = dice.choice(kinds)
    if kind == "late":
        return Fault("", kind, dice.randint(0, THIRDS), seconds=round(dice.uniform(0.05, 1.5), 2))
    # Most passages look or read, and most are at the records of tasks: every operation has its turn, and every file of a kind.
    found: dict[str, dict[str, list[int]]] = {}
    for at, (operation, path) in enumerate(known.passages, start=1):
        if Fault("", kind).applies(operation):
            found.setdefault(operation, {}).setdefault(_alike(path), []).append(at)
    if not found:
        return drawn(dice, kinds, scene, known)
    places = found[dice.choice(sorted(found))]
    passages = places[dice.choice(sorted(places))]
    lasts = kind in ("ENOSPC", "EDQUOT", "ESTALE", "EIO") and dice.random() < 0.4
    return Fault("", kind, dice.choice(passages), lasts)


def _alike(path: str) -> str:
    """`path` without what tells it from others of its kind: numbers and random names."""
    return re.sub(r"[0-9a-f]{8,}|\d+", "#", Path(path).name)


def several(dice: random.Random, kinds: Sequence[str], scene: Scene, known: Reference) -> list[Fault]:
    """A fault, and now and then a second one for the command that is to heal what the first one did."""
    if scene.processes or scene.makes:
        # What a file is made of is what is seen: there may be an iteration more tomorrow as well.
        kinds = [kind for kind in kinds if kind != "late"]
    if scene.processes:
        return [drawn(dice, kinds, scene, known)]
    faults = [drawn(dice, kinds, scene, known)]
    if faults[0].kind == "late":
        # There must be something that was just made.
        return [Fault("", "kill before", dice.randint(1, len(known.passages))), *faults]
    return [*faults, drawn(dice, kinds, scene, known)] if dice.random() < 0.2 else faults


def tried(workshop: Workshop, scene: Scene, known: Reference, faults: list[Fault], place: Path) -> str:
    """The scene with `faults`, one a command, and then without until it ends well. What went wrong; "" if nothing did."""
    scene.start(place)
    kept, state = committed_bytes(place), place / scene.state
    for fault in [*faults, *[None] * TRIES]:
        done = workshop.run(scene, place, fault)
        if wrong := done.complaint(scene, place) or lost(kept, place) or valid(state):
            return wrong
        sees_all = fault is None or fault.kind != "late"
        well = done.status == scene.status
        if well and scene.reads and sees_all and "note: " not in done.err and done.out != known.out:
            return f"it shows something else:\n{done.out}"
        if fault is None and well:
            break
        if scene.makes and "exists already" in done.err:
            break
    else:
        return f"the same command does not end well: {done.err}"
    left = leftovers(place)
    return (
        difference(known.contents, contents(state))
        or not_set_aside(known.aside, set_aside(state))
        or ("another file" if _made(scene, place) != known.made else "")
        or scene.after(place)
        or (f"left behind: {', '.join(left)}" if left and not scene.reads else "")
    )


def again(what: str) -> str:
    """The command that repeats one."""
    return f"python tests/chaos/inject.py --only {shlex.quote(what)}"


def parsed(text: str) -> tuple[str, list[Fault]]:
    """Scene and faults as they are printed."""
    scene, _, rest = text.partition(": ")
    found = []
    for part in rest.split(", then "):
        if late := re.fullmatch(r"late for ([\d.]+) s(?: in part (\d))?", part):
            found.append(Fault("", "late", int(late[2] or 0), seconds=float(late[1])))
            continue
        match = re.fullmatch(r"([\w ]+?) at (\d+)( and on)?(?: in a (\w+))?", part)
        if match is None:
            raise SystemExit(f"no fault: {part}")
        found.append(Fault("", match[1], int(match[2]), bool(match[3]), role=match[4] or ""))
    return scene, found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", metavar="SCENE: FAULT", help="this one alone")
    parser.add_argument("--scene", action="append", help="of these scenes alone")
    parser.add_argument("--kind", action="append", choices=KINDS, help="of these kinds alone")
    parser.add_argument("--keep", type=Path, help="a new folder that keeps the states that came out wrong")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        return inject(asked, Workshop((asked.keep or Path(temporary)) / "workshop"))


def inject(asked: argparse.Namespace, workshop: Workshop) -> int:
    scenes = {scene.name: scene for scene in workshop.scenes}
    only = parsed(asked.only) if asked.only else None
    wanted = [only[0]] if only else asked.scene or list(scenes)
    known = {name: reference(workshop, scenes[name]) for name in wanted}
    for name in wanted:
        print(f"{name}: {len(known[name].passages) or 'many'} passages", flush=True)
    dice, began = random.Random(asked.seed), time.monotonic()
    counts, seconds, wrong, missed = Counter[tuple[str, str]](), Counter[str](), 0, 0
    for number in range(1 if only else asked.faults):
        name = dice.choices(wanted, [SHARES[name] for name in wanted])[0]
        faults = only[1] if only else several(dice, asked.kind or KINDS, scenes[name], known[name])
        faults = [
            replace(fault, marker=str(workshop.folder / f"came-{number}-{at}"))
            for at, fault in enumerate(faults)
        ]
        place, started = workshop.place(f"place-{number}"), time.monotonic()
        said = tried(workshop, scenes[name], known[name], faults, place)
        came = [fault for fault in faults if Path(fault.marker).exists()]
        counts.update([(name, fault.kind) for fault in came])
        missed += len(faults) - len(came)
        seconds[name] += time.monotonic() - started
        if said:
            wrong += 1
            what = f"{name}: {', then '.join(map(str, faults))}"
            print(f"\n{what}\n  {said}\n  once more: {again(what)}", flush=True)
        if not (said and asked.keep):
            shutil.rmtree(place)
    print(f"\n{counts.total()} faults, seed {asked.seed}, in {time.monotonic() - began:.0f} s:")
    print(f"{'':8}" + "".join(f"{kind:>13}" for kind in KINDS) + f"{'together':>13}{'s each':>8}")
    for name in wanted:
        each = [counts[name, kind] for kind in KINDS]
        slow = seconds[name] / max(1, sum(each))
        print(f"{name:8}" + "".join(f"{number:13}" for number in (*each, sum(each))) + f"{slow:8.1f}")
    print(f"{'':8}" + "".join(f"{sum(counts[name, kind] for name in wanted):13}" for kind in KINDS))
    print(f"{missed} more did not come: the command was at its end before")
    print(f"{wrong} came out wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

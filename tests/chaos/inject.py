"""Faults of a disk, one a run: python tests/chaos/inject.py --faults 500 --seed 0

Each takes a scene (a command on a small scripted run), lets one passage of it fail, and runs the same command again until it ends well. There may
be no traceback, the state must be the one that an undisturbed command makes, and nothing half-written may be left. A fault that was printed is
repeated with --only "SCENE: FAULT".
"""

import argparse
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from chaos.scenes import Scene, Workshop, contents, difference, leftovers, valid  # noqa: E402
from chaos.shim import KINDS, Fault  # noqa: E402

SHARES = {"begin": 10, "experts": 4, "back": 3, "branch": 3, "score": 4, "look": 1, "parts": 1}
"""How often a scene has its turn."""
TRIES = 3
"""A command may need so many until it ends well, as one after a fault may meet a second one or not see all yet."""


@dataclass(frozen=True)
class Reference:
    """A scene undisturbed: its passages, and what its state comes to."""

    passages: tuple[tuple[str, str], ...]
    contents: dict[str, object]


def reference(workshop: Workshop, scene: Scene) -> Reference:
    """The scene without a fault."""
    place = workshop.place(f"reference-{scene.name}")
    scene.start(place)
    done = workshop.run(scene, place, count=not scene.processes)
    assert done.status == 0 and not done.complaint, (scene.name, done.complaint, done.err)
    return Reference(done.passages, contents(place / scene.state))


def drawn(dice: random.Random, scene: Scene, known: Reference, workshop: Workshop, number: int) -> Fault:
    """A fault for `scene`, at a passage to which it can come."""
    if scene.processes:
        # Its passages are not numbered: tasks and driver have their own.
        kind = dice.choice([kind for kind in KINDS if kind != "late"])
        role, marker = dice.choice(("task", "driver")), str(workshop.folder / f"marker-{number}")
        return Fault("", kind, dice.randint(1, 120 if role == "task" else 900), role=role, marker=marker)
    kind, passages = "", []
    while not passages:
        kind = dice.choice(KINDS)
        fault = Fault("", kind)
        passages = [
            at for at, (operation, _) in enumerate(known.passages, start=1) if fault.applies(operation)
        ]
    if kind == "late":
        return Fault("", kind, seconds=round(dice.uniform(0.05, 1.5), 2))
    lasts = kind in ("ENOSPC", "EDQUOT", "ESTALE", "EIO") and dice.random() < 0.4
    return Fault("", kind, dice.choice(passages), lasts)


def tried(workshop: Workshop, scene: Scene, known: Reference, faults: list[Fault], place: Path) -> str:
    """The scene with `faults`, one a command, and then without until it ends well. What went wrong; "" if nothing did."""
    scene.start(place)
    for fault in faults:
        done = workshop.run(scene, place, fault)
        if done.complaint:
            return done.complaint
    for _ in range(TRIES):
        done = workshop.run(scene, place)
        if done.complaint or done.status == 0:
            break
    if done.complaint or done.status != 0:
        return done.complaint or f"the same command does not end well: {done.err}"
    state = place / scene.state
    left = leftovers(place)
    return (
        difference(known.contents, contents(state))
        or valid(state)
        or (f"left behind: {', '.join(left)}" if left and scene.name != "look" else "")
    )


def parsed(text: str) -> tuple[str, list[Fault]]:
    """Scene and faults as they are printed."""
    scene, _, rest = text.partition(": ")
    found = []
    for part in rest.split(", then "):
        if late := re.fullmatch(r"late for ([\d.]+) s", part):
            found.append(Fault("", "late", seconds=float(late[1])))
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
    counts, wrong = Counter[str](), 0
    for number in range(1 if only else asked.faults):
        name = dice.choices(wanted, [SHARES[name] for name in wanted])[0]
        if only:
            marker = str(workshop.folder / "marker")
            faults = [replace(fault, marker=marker) if fault.role else fault for fault in only[1]]
        else:
            faults = [drawn(dice, scenes[name], known[name], workshop, number)]
            if faults[0].kind == "late":
                # There must be something that was just made.
                faults.insert(0, Fault("", "kill before", dice.randint(1, len(known[name].passages))))
            elif dice.random() < 0.2 and not scenes[name].processes:
                faults.append(drawn(dice, scenes[name], known[name], workshop, number))
        place = workshop.place(f"place-{number}")
        said = tried(workshop, scenes[name], known[name], faults, place)
        counts.update([fault.kind for fault in faults])
        if said:
            wrong += 1
            print(f"\n{name}: {', then '.join(map(str, faults))}\n  {said}", flush=True)
        if not (said and asked.keep):
            shutil.rmtree(place)
    total = counts.total()
    print(
        f"{total} faults in {time.monotonic() - began:.0f} s: "
        + ", ".join(f"{n} {kind}" for kind, n in sorted(counts.items()))
    )
    print(f"{wrong} came out wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

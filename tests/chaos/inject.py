"""Faults of a disk: python tests/chaos/inject.py --seconds 600 --seed 1, or, all doors once: python tests/chaos/inject.py --doors

A scene is a command on a small scripted run. Some passages of it to the disk fail, and the same command is run again until it ends well. There may
be no traceback, the state must be the one that an undisturbed command makes, and nothing half-written may be left. What was printed as wrong is
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
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from chaos.scenes import Scene, Workshop  # noqa: E402
from chaos.shim import ERRORS, KINDS, THIRDS, WALKS, Fault, alike  # noqa: E402
from chaos.trial import Reference, reference, tried  # noqa: E402
from chaos.walk import walked  # noqa: E402

SHARES = {
    "begin": 10, "experts": 4, "pool": 2, "back": 4, "branch": 4, "score": 4, "look": 2, "watch": 2, "export": 2, "end": 3, "parts": 2,
}  # fmt: skip
"""How often a scene has its turn."""


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
    for at, (operation, path, _) in enumerate(known.passages, start=1):
        if Fault("", kind).applies(operation):
            found.setdefault(operation, {}).setdefault(alike(path), []).append(at)
    if not found:
        return drawn(dice, kinds, scene, known)
    places = found[dice.choice(sorted(found))]
    passages = places[dice.choice(sorted(places))]
    lasts = kind in ERRORS and dice.random() < 0.4
    return Fault("", kind, dice.choice(passages), lasts)


def several(dice: random.Random, kinds: Sequence[str], scene: Scene, known: Reference) -> list[Fault]:
    """A fault, and now and then more, for the commands that are to heal what it did."""
    if scene.processes or scene.makes:
        # What a file is made of is what is seen: there may be an iteration more tomorrow as well.
        kinds = [kind for kind in kinds if kind != "late"]
    if scene.processes:
        return [drawn(dice, kinds, scene, known)]
    faults = [drawn(dice, kinds, scene, known)]
    if faults[0].kind == "late":
        # There must be something that was just made.
        return [Fault("", "kill before", dice.randint(1, len(known.passages))), *faults]
    while dice.random() < 0.3:
        faults.append(drawn(dice, kinds, scene, known))
    return faults


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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--seconds", type=float, help="random faults for so long")
    what.add_argument("--doors", action="store_true", help="a fault of each kind once at every door")
    what.add_argument("--only", metavar="SCENE: FAULT", help="this one alone")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the random faults; the same seed draws the same"
    )
    parser.add_argument("--scene", action="append", help="of these scenes alone")
    parser.add_argument(
        "--kind",
        action="append",
        choices=[*KINDS, *(kind for kind in WALKS if kind not in KINDS)],
        help="of these kinds alone",
    )
    parser.add_argument(
        "--except", dest="but", action="append", default=[], help="without the doors that this scene has"
    )
    parser.add_argument("--keep", type=Path, help="a new folder that keeps the states that came out wrong")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        workshop = Workshop((asked.keep or Path(temporary)) / "workshop")
        return walk_all(asked, workshop) if asked.doors else inject(asked, workshop)


def walk_all(asked: argparse.Namespace, workshop: Workshop) -> int:
    """Every door of the scenes, once with each kind of fault that can come to it. Prints how many there are, and what went wrong.

    A door that several scenes have is passed in the first of them: name a scene alone for all of its own.
    """
    # Tasks in processes of their own have passages of their own.
    scenes = [workshop.scene(name) for name in asked.scene or SHARES if not workshop.scene(name).processes]
    kinds, began = asked.kind or WALKS, time.monotonic()
    others = [door for name in asked.but for _, _, door in reference(workshop, workshop.scene(name)).passages]
    behind = {kind: dict.fromkeys(others) for kind in kinds}
    every, passages, faults, runs, wrong = set[str](), 0, 0, 0, 0
    for scene in scenes:
        known = reference(workshop, scene)
        doors = {door for _, _, door in known.passages}
        passages, every = passages + len(known.passages), every | doors
        print(f"{scene.name}: {len(known.passages)} passages, {len(doors)} doors", flush=True)
        for kind in kinds:
            started, walk = time.monotonic(), walked(workshop, scene, known, kind, behind[kind])
            faults, runs = faults + len(walk.doors), runs + walk.commands
            behind[kind].update(dict.fromkeys(walk.doors))
            spent = time.monotonic() - started
            print(
                f"  {kind:6} at {len(walk.doors):4} doors, {walk.commands:4} commands, {spent:4.0f} s",
                flush=True,
            )
            if walk.wrong:
                wrong += 1
                words = ["python", "tests/chaos/inject.py", "--doors", "--kind", kind]
                words += [word for each in scenes for word in ("--scene", each.name)]
                words += [word for name in asked.but for word in ("--except", name)]
                last = walk.doors[-1] if walk.doors else "no door"
                print(
                    f"\n{scene.name}: {kind} at {last}\n  {walk.wrong}\n  once more: {shlex.join(words)}",
                    flush=True,
                )
    print(
        f"\n{passages} passages, {len(every)} doors, {faults} faults, {runs} commands in {time.monotonic() - began:.0f} s"
    )
    print(f"{wrong} came out wrong")
    return 1 if wrong else 0


def inject(asked: argparse.Namespace, workshop: Workshop) -> int:
    """Random faults, or one that was printed. Prints what came and what went wrong."""
    scenes = {scene.name: scene for scene in workshop.scenes}
    only = parsed(asked.only) if asked.only else None
    wanted = [only[0]] if only else asked.scene or list(scenes)
    known = {name: reference(workshop, scenes[name]) for name in wanted}
    for name in wanted:
        print(f"{name}: {len(known[name].passages) or 'many'} passages", flush=True)
    dice, began = random.Random(asked.seed), time.monotonic()
    counts, seconds, wrong, missed = Counter[tuple[str, str]](), Counter[str](), 0, 0
    number = 0
    while number == 0 if only else time.monotonic() - began < asked.seconds:
        number += 1
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
    print(
        f"\n{counts.total()} faults in {number} trials, seed {asked.seed}, in {time.monotonic() - began:.0f} s:"
    )
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

"""A walk: a fault comes once at every door of a scene, at its first passage, and the command is run again after each on the same state.

A command goes on where the one before has come to, so that hundreds of doors take little more than their number of starts. When it ends well,
the state is compared, and the scene begins anew for the doors that were not passed on the way; the last round has no fault.
"""

import shutil
from collections.abc import Collection
from dataclasses import dataclass

from chaos.scenes import Scene, Workshop
from chaos.shim import Fault
from chaos.states import committed_bytes
from chaos.trial import TRIES, Reference, at_end, at_once


@dataclass(frozen=True)
class Walk:
    """What became of it. doors: at which the fault came, in their order. commands: that were run. wrong: what went wrong; "" if nothing did."""

    doors: tuple[str, ...]
    commands: int
    wrong: str


def walked(
    workshop: Workshop, scene: Scene, known: Reference, kind: str, behind: Collection[str] = ()
) -> Walk:
    """A walk through all doors of `scene`, except those in `behind`, with faults of `kind`, of WALKS or an error."""
    noted = workshop.folder / f"doors-{scene.name}-{kind}"
    noted.write_text("".join(f"{door}\n" for door in behind))
    fault, commands, rounds, wrong, came = Fault("", kind, doors=str(noted)), 0, 0, "", True
    while came and not wrong:
        place = workshop.place(f"walk-{scene.name}-{kind}-{rounds}")
        before, rounds, in_vain = noted.stat().st_size, rounds + 1, 0
        scene.start(place)
        kept = dict[str, str]()
        while not wrong:
            so_far = noted.stat().st_size
            kept |= committed_bytes(place)
            done = workshop.run(scene, place, fault)
            commands += 1
            wrong = at_once(scene, done, kept, place)
            if done.status == scene.status or (scene.makes and "exists already" in done.err):
                break
            in_vain = 0 if noted.stat().st_size > so_far else in_vain + 1
            if in_vain > TRIES:
                wrong = wrong or f"the same command does not end well: {done.err}"
        came = noted.stat().st_size > before
        if not came and scene.reads and done.out != known.out:
            wrong = wrong or f"it shows something else:\n{done.out}"
        wrong = wrong or at_end(scene, known, place)
        if not wrong:
            shutil.rmtree(place)
    return Walk(tuple(noted.read_text().splitlines()[len(behind) :]), commands, wrong)

"""One trial: a scene with faults, the same command until it ends well, and what went wrong."""

from dataclasses import dataclass
from pathlib import Path

from chaos.scenes import Done, Scene, Workshop
from chaos.shim import Fault
from chaos.states import (
    committed_bytes,
    contents,
    difference,
    leftovers,
    lost,
    not_set_aside,
    set_aside,
    valid,
)

TRIES = 3
"""A command may need so many until it ends well, as one after a fault may meet a second one or not see all yet."""


@dataclass(frozen=True)
class Reference:
    """A scene undisturbed: its passages, what its state comes to and has set aside, what it printed, and the file that it made."""

    passages: tuple[tuple[str, str, str], ...]
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


def tried(workshop: Workshop, scene: Scene, known: Reference, faults: list[Fault], place: Path) -> str:
    """The scene with `faults`, one a command, and then without until it ends well. What went wrong; "" if nothing did."""
    scene.start(place)
    kept = dict[str, str]()
    for fault in [*faults, *[None] * TRIES]:
        kept |= committed_bytes(place)
        done = workshop.run(scene, place, fault)
        if wrong := at_once(scene, done, kept, place):
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
    return at_end(scene, known, place)


def at_once(scene: Scene, done: Done, kept: dict[str, str], place: Path) -> str:
    """What is wrong right after a command, however it ended; "" if nothing is. kept: what had been committed before it."""
    return done.complaint(scene, place) or lost(kept, place) or valid(place / scene.state)


def at_end(scene: Scene, known: Reference, place: Path) -> str:
    """In what the scene differs from the undisturbed one, once its command has ended well; "" if in nothing."""
    left, state = leftovers(place), place / scene.state
    return (
        difference(known.contents, contents(state))
        or not_set_aside(known.aside, set_aside(state))
        or ("another file" if _made(scene, place) != known.made else "")
        or scene.after(place)
        or (f"left behind: {', '.join(left)}" if left and not scene.reads else "")
    )

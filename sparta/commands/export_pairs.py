"""Preference pairs in the format of TRL's trainers: `prompt`, `chosen` and `rejected`, each a list of messages.

The state's own preferences.jsonl holds them as sampled, with token ids; TRL refuses it, see `sparta.store.records.Pair`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from sparta.chat.template import Message
from sparta.errors import SpartaError
from sparta.screen import Screen
from sparta.store import files
from sparta.store.disk import present
from sparta.store.layout import IterationDir, StateDir, parse_iteration
from sparta.store.manifest import read_manifest
from sparta.store.records import Pair
from sparta.store.run import Run


class TrlPair(msgspec.Struct, frozen=True):
    """A conversational preference row of TRL, and the iteration that made the pair."""

    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    iteration: int


def export_pairs(source: Path, out: Path, finished: bool, screen: Screen) -> None:
    """Write the pairs of a run, or of one of its iterations, to `out`.

    source: a state directory (its committed iterations, in order), or one iteration in it. A pair that a later iteration was trained on again
    is written once. finished: leave out pairs with a response that was cut
    at its token limit, because TRL trains every response to end where its text ends. Raises SpartaError where `out` exists, where nothing is
    committed, and where preferences.jsonl was changed since its commit.
    """
    if out.exists():
        raise SpartaError(f"{out} exists already: name another file with --out, or remove it")
    iterations = _iterations(source)
    every = [pair for iteration in iterations for pair in _pairs(iteration)]
    # A method may keep the pairs of the previous iteration in.
    pairs = list({pair.combat_id: pair for pair in every}.values())
    cut = sum(not all(pair.finished) for pair in pairs)
    kept = [pair for pair in pairs if all(pair.finished) or not finished]
    if not kept:
        raise SpartaError(
            f"{source} has no preference pairs to write{' in which both responses finished' * finished}"
        )
    files.make_folder(out.parent)
    files.remove_abandoned(out)
    files.write_rows(out, map(_row, kept))
    screen.say(f"{len(kept):,} preference pairs of {_named(iterations)} written to {out}, in TRL's format")
    if repeated := len(every) - len(pairs):
        screen.say(
            f"{repeated:,} pairs that an iteration kept from the one before are written once, with the iteration that made them"
        )
    if cut:
        screen.say(
            f"{cut:,} pairs were left out: a response was cut at its token limit"
            if finished
            else f"in {cut:,} of them a response was cut at its token limit, and TRL trains the model to stop there: --finished leaves them out"
        )


def _iterations(source: Path) -> list[IterationDir]:
    if (source / "run.json").is_file():
        state = StateDir(source)
        Run.open(state)
        committed = [t for t in state.committed() if t > 0]
        if not committed:
            raise SpartaError(
                f"{source} has no committed iteration yet, so no preference pairs: launch it first, or name another state"
            )
        if missing := sorted({*range(1, committed[-1])} - {*committed}):
            raise SpartaError(
                f"{state.iteration(missing[0]).manifest} is missing, and iterations after it are committed: restore it from a copy"
            )
        return [state.iteration(t) for t in committed]
    state, t = parse_iteration(source)
    Run.open(state)
    if t == 0 or not present(state.iteration(t).manifest):
        raise SpartaError(
            f"{source} {'is the initial pool' if t == 0 else 'is not committed'}: it has no preference pairs to write"
        )
    return [state.iteration(t)]


def _pairs(iteration: IterationDir) -> Iterator[Pair]:
    path = iteration.preferences
    known = read_manifest(iteration).files[path.name]
    if files.sha256_file(path) != known.sha256:
        raise SpartaError(f"{path} was changed since its iteration was committed: restore it from a copy")
    return files.read_rows(path, Pair)


def _row(pair: Pair) -> TrlPair:
    return TrlPair(
        prompt=pair.messages,
        chosen=(Message("assistant", pair.chosen),),
        rejected=(Message("assistant", pair.rejected),),
        iteration=pair.iteration,
    )


def _named(iterations: Sequence[IterationDir]) -> str:
    first, last = iterations[0].root.name, iterations[-1].root.name
    return first if first == last else f"{first} to {last}"

"""The pool of an iteration: its members follow from those before and from the trainings, and their adapters are what was recorded.

Only for an iteration whose files are those of its manifest: their digests are taken from there, and no adapter is read again for them.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from sparta.engines.adapter_check import check_adapter
from sparta.engines.weight_files import tensors_in
from sparta.errors import SpartaError
from sparta.phases.base import Phase
from sparta.phases.commit import pool_after
from sparta.phases.train import Train, trained
from sparta.pool.members import locate
from sparta.store import files, standings
from sparta.store.disk import present
from sparta.store.manifest import committed_digest
from sparta.store.pruned import read_pruned
from sparta.store.records import Member, Trained
from sparta.store.run import Run
from sparta.store.shards import read_shards
from sparta.training.adapter_folder import WEIGHTS
from sparta.verify.finding import Finding, counted, errors_into

CHECK = "pool"
LOG_RATIO_TOLERANCE = 1.0
"""Nats that the first log-ratio of a pair may differ from 0: in bfloat16 the log-probability of a response of 2,000 tokens is off by some tenths. The
loss then differs from ln 2 by half of that times beta."""


def findings_in_initial_pool(run: Run, own_rules: bool) -> Iterator[Finding]:
    """What is wrong with M^0: its adapters, and the standings that every run begins with. own_rules: it was made by the recipe of `run`."""
    zero = run.iteration(0)
    if own_rules and standings.at_end(run, 0) != standings.initial(run):
        yield Finding(
            CHECK,
            f"{zero.standing} does not have the standings that a run of this recipe begins with: restore it from a copy",
            0,
        )
    yield from _pruned(run, 0)
    for member in run.pool(0).values():
        folder = run.state.inside(member.adapter)
        if not _is_pruned(run, folder) and committed_digest(zero, folder) != member.sha256:
            yield Finding(
                CHECK, f"{folder} is not the adapter that {zero.pool} records: restore it from a copy", 0
            )
    yield from _findings_in_weights(run, 0)


def findings_in_pool(run: Run, t: int, learners: Sequence[str], phases: Sequence[Phase]) -> Iterator[Finding]:
    """What is wrong with M^t, t >= 1. learners: the members that learned."""
    found: list[Finding] = []
    with errors_into(found, CHECK, t):
        there = [name for name in learners if not _is_pruned(run, run.iteration(t).adapter(name))]
        trained(run, t, there, Trained, partial(committed_digest, run.iteration(t)))
        every = read_shards(run.iteration(t).training, Trained)
        rows = {name: every[name] for name in learners if name in every}
        if list(run.pool(t).values()) != pool_after(run, t, rows):
            yield Finding(
                CHECK,
                f"{run.iteration(t).pool} does not follow from the pool before and the trainings: restore it from a copy",
                t,
            )
        if not any(isinstance(phase, Train) and phase.square_loss for phase in phases):
            yield from _first_losses(rows.values(), t, run.recipe.dpo.beta)
    yield from found
    yield from _pruned(run, t)
    yield from _findings_in_weights(run, t)


def _pruned(run: Run, t: int) -> Iterator[Finding]:
    gone = [path.name for path in _adapters_made(run, t) if _is_pruned(run, path)]
    if gone:
        yield Finding(
            CHECK,
            f"the weights of {counted(len(gone), 'adapter')} were removed on purpose ({read_pruned(run.state).why}) and not checked",
            t,
            wrong=False,
        )


def _adapters_made(run: Run, t: int) -> list[Path]:
    """The folders of the adapters that iteration t made, each once."""
    folders = dict.fromkeys(run.state.inside(member.adapter) for member in run.pool(t).values())
    return [folder for folder in folders if folder.is_relative_to(run.iteration(t).root)]


def _is_pruned(run: Run, folder: Path) -> bool:
    weights = folder / WEIGHTS
    return str(weights.relative_to(run.state.root)) in read_pruned(run.state).files and not present(weights)


def _first_losses(rows: Iterable[Trained], t: int, beta: float) -> Iterator[Finding]:
    """DPO begins where model and reference are equal, so that the first loss is ln 2."""
    for row in rows:
        if (
            row.pairs
            and row.first_loss is not None
            and abs(row.first_loss - math.log(2)) > beta * LOG_RATIO_TOLERANCE / 2
        ):
            yield Finding(
                CHECK,
                f"the training of {row.model} began at a loss of {row.first_loss:.4f} instead of ln 2 = {math.log(2):.4f}: its reference was not its "
                "own adapter of the iteration before; go back to that iteration with --resume",
                t,
            )


def _findings_in_weights(run: Run, t: int) -> Iterator[Finding]:
    """Every adapter that iteration t made: of the shapes of the one it began from, all numbers finite, and made for its base."""
    before = run.pool(t - 1) if t else {}
    made: dict[str, Member] = {}
    for member in run.pool(t).values():
        if member.name not in before or before[member.name].adapter != member.adapter:
            made.setdefault(member.adapter, member)
    # Adapters of the scripted engine are no LoRA.
    real = run.recipe.engine.kind != "scripted"
    for member in made.values():
        found: list[Finding] = []
        with errors_into(found, CHECK, t):
            folder = run.state.inside(member.adapter)
            if real and not _is_pruned(run, folder):
                _require_usable(run, member, folder, before.get(member.name))
        yield from found


def _require_usable(run: Run, member: Member, folder: Path, before: Member | None) -> None:
    base = Path(locate(member.base, run.recipe.pool.folder))
    if base.is_dir():
        check_adapter(folder, base)
    if before is not None:
        _require_same_tensors(folder, run.state.inside(before.adapter))
    _require_finite(folder / WEIGHTS)


def _require_same_tensors(folder: Path, before: Path) -> None:
    if present(before / WEIGHTS) and tensors_in(folder / WEIGHTS) != tensors_in(before / WEIGHTS):
        raise SpartaError(
            f"{folder} has other tensors than {before}, which it was trained from: restore it from a copy"
        )


def _require_finite(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with files.os_errors_named(path), safe_open(path, framework="pt") as file:
            bad = next((name for name in file.keys() if not file.get_tensor(name).isfinite().all()), None)  # noqa: SIM118
    except SafetensorError as error:
        raise SpartaError(f"{path} cannot be loaded ({error}): restore it from a copy") from error
    if bad is not None:
        raise SpartaError(
            f"{path} has numbers that are not finite, in {bad}: go back to the iteration before with --resume"
        )

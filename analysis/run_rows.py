"""The rows of one run, iteration by iteration, as columns of the frames: combats, votes, standings, training, cost.

Each function reads what is on disk now, also of an iteration that is not committed; where a file is not there yet, its rows are missing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from analysis.frame_columns import FRAMES, Columns
from sparta.arena.preferences import REASONS
from sparta.arena.reputation import Standing
from sparta.chat.judge_prompts import question_text
from sparta.store import files
from sparta.store.disk import present
from sparta.store.layout import IterationDir
from sparta.store.records import Pair, Response, Result, Trained, TrainedExpert, Vote
from sparta.store.run import Run
from sparta.store.shards import iter_shards
from sparta.store.stats import IterationStats
from sparta.training.adapter_folder import LOG

OWN = "own"
"""The task of a run on instructions of one's own."""
IDLE = "idle"
"""The part of a cost in which nothing was done."""


class Update(msgspec.Struct, frozen=True):
    """One line of an adapter's log.jsonl."""

    update: int
    loss: float | None = None
    grad_norm: float | None = None
    learning_rate: float | None = None
    reward_margin: float | None = None
    reward_accuracy: float | None = None
    seconds: float | None = None


class Rows:
    """Rows that are added one by one, as columns: values come in the order of `names`."""

    def __init__(self, names: Iterable[str]) -> None:
        self.columns: dict[str, list[Any]] = {name: [] for name in names}
        self._append = [column.append for column in self.columns.values()]

    def add(self, *values: object) -> None:
        for append, value in zip(self._append, values, strict=True):
            append(value)


def iterations_of(run: Run) -> Iterator[IterationDir]:
    return (run.iteration(t) for t in run.state.iterations())


def runs(run: Run) -> Iterator[Columns]:
    recipe = run.recipe
    yield {
        "path": [str(run.state.root)],
        "recipe": [recipe.name],
        "method": [recipe.method],
        "task": [recipe.data.task or OWN],
        "seed": [recipe.seed],
        "run_id": [run.info.run_id],
        "created": [run.info.created],
        "models": [len(run.models)],
        "combats": [recipe.combats],
        "iterations": [recipe.iterations],
        "committed": [run.state.last_committed()],
    }


def iterations(run: Run) -> Iterator[Columns]:
    committed = set(run.state.committed())
    for iteration in iterations_of(run):
        row: dict[str, object] = {"iteration": iteration.t, "committed": iteration.t in committed}
        stats = _stats(iteration)
        if stats is not None:
            tokens = stats.tokens
            row |= {reason: stats.reasons.get(reason, 0) for reason in REASONS}
            row |= {
                "unit": stats.unit,
                "combats": stats.combats,
                "uniform_juries": stats.uniform_juries,
                "too_long": stats.too_long,
                "unanswered": stats.unanswered,
                "cut_responses": stats.cut_responses,
                "votes_saved": stats.votes_saved,
                # Measured after the commit; version 0.1.0 measured it without an account.
                "gpu_seconds": stats.gpu_seconds if stats.account else stats.gpu_seconds or None,
                "gpu_idle": stats.gpu_idle,
            }
            # Version 0.1.0 did not count tokens.
            if tokens.total:
                row |= {"generated": tokens.generated, "read": tokens.read, "trained": tokens.trained}
        yield {name: [value] for name, value in row.items()}


def combats(run: Run) -> Iterator[Columns]:
    for iteration in iterations_of(run):
        if not present(iteration.combats):
            continue
        rows = Rows(FRAMES["combats"])
        prompts = {
            combat.combat_id: (combat.prompt_id, question_text(combat.messages))
            for combat in run.plan(iteration.t)
        }
        for place, result in enumerate(files.read_rows(iteration.combats, Result)):
            first, second = result.models
            one, two = result.scores or (None, None)
            margin = None if one is None or two is None else one - two
            loser = None if result.winner is None else second if result.winner == first else first
            rows.add(
                iteration.t,
                place,
                result.combat_id,
                *prompts[result.combat_id],
                first,
                second,
                one,
                two,
                margin,
                result.winner,
                loser,
                result.reason,
                result.jury,
                *result.reputations_before,
                *result.reputations_after,
            )
        yield rows.columns


def responses(run: Run) -> Iterator[Columns]:
    return _of_records(run, "responses", lambda iteration: iter_shards(iteration.responses, Response))


def votes(run: Run) -> Iterator[Columns]:
    return _of_records(run, "votes", lambda iteration: iter_shards(iteration.votes, Vote))


def _of_records(run: Run, frame: str, read: Callable[[IterationDir], Iterable[object]]) -> Iterator[Columns]:
    """A frame whose columns, after `iteration`, are fields of the rows that `read` gives."""
    of_iteration, *fields = FRAMES[frame]
    for iteration in iterations_of(run):
        rows = Rows((of_iteration, *fields))
        for row in read(iteration):
            rows.add(iteration.t, *(getattr(row, name) for name in fields))
        yield rows.columns


def pairs(run: Run) -> Iterator[Columns]:
    for iteration in iterations_of(run):
        if not present(iteration.preferences):
            continue
        rows = Rows(FRAMES["pairs"])
        for row in files.read_rows(iteration.preferences, Pair):
            rows.add(
                iteration.t,
                row.combat_id,
                row.iteration,
                # A gold answer has no model.
                *(model or None for model in row.models),
                *row.scores,
                row.scores[0] - row.scores[1],
                row.chosen,
                row.rejected,
                *row.finished,
            )
        yield rows.columns


def standings(run: Run) -> Iterator[Columns]:
    before: Mapping[str, Standing] = {}
    for iteration in iterations_of(run):
        if not present(iteration.standing):
            continue
        found = files.read_json(iteration.standing, dict[str, Standing])
        rows = Rows(FRAMES["standings"])
        for name, standing in found.items():
            change = standing.reputation - before[name].reputation if name in before else None
            rows.add(
                iteration.t,
                name,
                standing.reputation,
                change,
                standing.deviation,
                standing.weight,
                standing.reweighted,
            )
        before = found
        yield rows.columns


def training(run: Run) -> Iterator[Columns]:
    for iteration in iterations_of(run):
        rows = Rows(FRAMES["training"])
        if iteration.t:
            for row in iter_shards(iteration.training, Trained):
                rows.add(
                    iteration.t,
                    row.model,
                    "preferences",
                    row.pairs,
                    row.dropped,
                    row.steps,
                    row.first_loss,
                    None,
                    row.mean_loss,
                    row.tokens,
                    row.seconds,
                )
        else:
            for expert in iter_shards(iteration.training, TrainedExpert):
                rows.add(
                    iteration.t,
                    expert.model,
                    "sft",
                    expert.rows,
                    expert.dropped,
                    expert.steps,
                    expert.first_loss,
                    expert.last_loss,
                    expert.mean_loss,
                    expert.tokens,
                    expert.seconds,
                )
        yield rows.columns


def updates(run: Run) -> Iterator[Columns]:
    for iteration in iterations_of(run):
        rows = Rows(FRAMES["updates"])
        for model in run.models:
            log = iteration.adapter(model) / LOG
            for row in files.read_rows(log, Update) if present(log) else ():
                rows.add(
                    iteration.t,
                    model,
                    row.update,
                    row.loss,
                    row.grad_norm,
                    row.learning_rate,
                    row.reward_margin,
                    row.reward_accuracy,
                    row.seconds,
                )
        yield rows.columns


def cost(run: Run) -> Iterator[Columns]:
    for iteration in iterations_of(run):
        stats = _stats(iteration)
        account = None if stats is None else stats.account
        if account is None:
            continue
        whole = account.used + account.idle
        rows = Rows(FRAMES["cost"])
        for part, seconds in {**account.parts, IDLE: account.idle}.items():
            share = seconds / whole if whole else None
            rows.add(iteration.t, part, account.unit, seconds, share, account.places, account.seconds)
        yield rows.columns


def _stats(iteration: IterationDir) -> IterationStats | None:
    return files.read_measured(iteration.stats, IterationStats)


OF_RUN: Mapping[str, Callable[[Run], Iterator[Columns]]] = {
    "runs": runs,
    "iterations": iterations,
    "combats": combats,
    "responses": responses,
    "votes": votes,
    "pairs": pairs,
    "standings": standings,
    "training": training,
    "updates": updates,
    "cost": cost,
}
"""By frame, what reads its rows."""

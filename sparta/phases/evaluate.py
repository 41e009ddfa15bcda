"""Evaluate: checkpoints answer the items of a task's split, greedily, once; the task grades (section 3).

Work items like any phase's, so evaluation is dealt out, resumed and completed by key: adding checkpoints only adds keys.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import cast

from sparta.engines.base import Inbox, ModelRef, Request, Sampling
from sparta.errors import SpartaError
from sparta.phases import costs
from sparta.phases.base import RowPhase, Sink, WorkItem
from sparta.phases.pool import engine_for, references
from sparta.store.records import Answer, evaluation_key
from sparta.store.run import Run
from sparta.store.shards import read_shards
from sparta.tasks.base import Item, Split
from sparta.tasks.registry import task_named

PREFIX = "evaluate:"


class Evaluate(RowPhase):
    """Scores the pools of `iterations` (or, of those, the checkpoints in `only`) on one split of one task.

    The t of its methods is not looked at.
    """

    rows = Answer

    def __init__(
        self, task: str, split: Split, iterations: tuple[int, ...], only: tuple[str, ...] = ()
    ) -> None:
        self.task, self.split, self.iterations, self.only = task, split, iterations, only
        self.name = f"{PREFIX}{task}:{split}:{','.join(map(str, iterations))}:{','.join(only)}"

    @classmethod
    def named(cls, name: str) -> "Evaluate":
        """The phase that calls itself `name`."""
        task, split, iterations, only = name.removeprefix(PREFIX).split(":")
        return cls(
            task,
            cast(Split, split),
            tuple(int(t) for t in iterations.split(",")),
            tuple(filter(None, only.split(","))),
        )

    @property
    def title(self) -> str:
        return f"score {self.task} {self.split}"

    def place(self, t: int) -> str:
        return f"evals/{self.task}/{self.split}"

    def folder(self, run: Run, t: int) -> Path:
        # Answers under another limit are other answers.
        return run.state.evals / self.task / self.split / f"limit-{run.recipe.evaluation.max_new_tokens}"

    def items(self, run: Run) -> Sequence[Item]:
        """The items that the recipe asks for."""
        evaluation = run.recipe.evaluation
        sizes = {"validation": evaluation.validation, "test": evaluation.test}
        return task_named(self.task).items(self.split, sizes.get(self.split))

    def work(self, run: Run, t: int) -> Sequence[WorkItem]:
        items = self.items(run)
        return [
            WorkItem(
                evaluation_key(checkpoint, item.item_id),
                cost=1.0,
                group=checkpoint,
                base=model.base,
            )
            for checkpoint, model in self.checkpoints(run).items()
            for item in items
        ]

    def priced(self, run: Run, t: int, items: Sequence[WorkItem]) -> Sequence[WorkItem]:
        questions = {item.item_id: item.messages for item in self.items(run)}
        return costs.of_answers(run, items, questions, self.folder(run, t))

    def checkpoints(self, run: Run) -> dict[str, ModelRef]:
        """The models to score, by checkpoint name (iter_05-adder)."""
        found = {
            checkpoint_name(run, t, name): model
            for t in self.iterations
            for name, model in references(run, t).items()
        }
        return {name: model for name, model in found.items() if name in self.only} if self.only else found

    def execute(self, run: Run, t: int, items: Sequence[WorkItem], sink: Sink) -> None:
        recipe = run.recipe
        task, checkpoints = task_named(self.task), self.checkpoints(run)
        engine = engine_for(run, checkpoints.values())
        questions = {item.item_id: item for item in self.items(run)}
        wanted = {item.key for item in items}
        asked = {
            evaluation_key(checkpoint, item_id): (checkpoint, item)
            for checkpoint in checkpoints
            for item_id, item in questions.items()
            if evaluation_key(checkpoint, item_id) in wanted
        }
        sampling = Sampling(
            temperature=0.0, top_p=1.0, top_k=0, max_new_tokens=recipe.evaluation.max_new_tokens
        )
        requests = (
            Request(
                key,
                checkpoints[name],
                engine.renderer(checkpoints[name]).combat(item.messages),
                sampling,
                seed=0,
            )
            for key, (name, item) in asked.items()
        )
        for completion in engine.run(Inbox(requests)):
            checkpoint, item = asked[completion.key]
            sink.write(
                Answer(
                    item_id=item.item_id,
                    checkpoint=checkpoint,
                    text=completion.text,
                    grade=task.grade(item, completion.text),
                    new_tokens=completion.new_tokens,
                    seconds=completion.seconds,
                )
            )

    def scores(self, run: Run) -> dict[str, dict[str, float]]:
        """Grade of every answer by checkpoint and item, of the checkpoints and items asked for. Raises SpartaError where one is missing."""
        found = read_shards(self.folder(run, 0), Answer)
        items = self.items(run)
        table: dict[str, dict[str, float]] = {}
        for checkpoint in self.checkpoints(run):
            for item in items:
                answer = found.get(evaluation_key(checkpoint, item.item_id))
                if answer is None:
                    raise SpartaError(
                        f"{checkpoint} has no answer to {item.item_id} in {self.folder(run, 0)}: run the evaluation again to complete it"
                    )
                if answer.grade is not None:
                    table.setdefault(checkpoint, {})[item.item_id] = answer.grade
        return table


def checkpoint_name(run: Run, t: int, model: str) -> str:
    return f"{run.iteration(t).root.name}-{model}"


def mean(grades: Mapping[str, float]) -> float:
    """Mean grade of one checkpoint."""
    return fmean(grades.values())

"""Evaluate: checkpoints answer the items of a split of several tasks, greedily, once; each task grades (section 3).

Work items like any phase's, so evaluation is dealt out, resumed and completed by key: adding checkpoints, or tasks, only adds keys.
"""

import re
from abc import abstractmethod
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import ClassVar, Self, get_args

from msgspec.structs import replace

from sparta.engines.base import Inbox, ModelRef
from sparta.errors import SpartaError
from sparta.evaluation.answer_requests import AnswerRequests, EvalItem, prompt_format_of
from sparta.evaluation.items import items_file, items_of
from sparta.names import quoted
from sparta.phases import token_costs
from sparta.phases.base import ArrayPhase, PhaseSpec, Rows, Sink, WorkItem
from sparta.pool.checks import check_prompts
from sparta.pool.members import engine_for, references
from sparta.store.disk import present
from sparta.store.layout import parse_checkpoint
from sparta.store.records import Answer, answer_key
from sparta.store.run import Run
from sparta.tasks.base import Split
from sparta.tasks.registry import task_named

EntriesByTask = Mapping[str, Sequence[str]]
"""By task, the entries to score: iterations ("iter_00": all its models) and checkpoints ("iter_05-adder")."""


def checkpoint_name(run: Run, t: int, model: str) -> str:
    return f"{run.iteration(t).root.name}-{model}"


def checkpoints(run: Run, entries: Iterable[str]) -> dict[str, ModelRef]:
    """The models that `entries` come to, by checkpoint name, each once. Raises SpartaError where there is no such checkpoint."""
    found: dict[str, ModelRef] = {}
    for entry in entries:
        t, name = parse_checkpoint(entry)
        models = references(run, t)
        if name and name not in models:
            raise SpartaError(
                f"there is no checkpoint {entry}: the models of that iteration are {', '.join(models)}"
            )
        for model in [name] if name else models:
            found[checkpoint_name(run, t, model)] = models[model]
    return found


class OverTasks(ArrayPhase):
    """A phase of an evaluation: one array for several tasks, each with rows of its own. The t of its methods is not looked at."""

    verb: ClassVar[str]

    def __init__(self, split: Split, asked: EntriesByTask) -> None:
        self.split = split
        self.asked = {_as_folder(task): tuple(entries) for task, entries in asked.items()}
        self.spec = PhaseSpec(split, tuple(self.asked.items()))

    @classmethod
    def of(cls, spec: PhaseSpec) -> Self:
        """The phase that was asked for `spec`."""
        return cls(spec.split, dict(spec.asked))

    @property
    def title(self) -> str:
        return f"{self.verb} {', '.join(self.asked)} {self.split}"

    @property
    @abstractmethod
    def parts(self) -> "Sequence[TaskRows]":
        """One for each task, in the order of `asked`."""

    def work(self, run: Run, t: int) -> Sequence[WorkItem]:
        return [item for part in self.parts for item in part.work(run, t)]

    def missing(self, run: Run, t: int) -> Sequence[WorkItem]:
        return [item for part in self.parts for item in part.missing(run, t)]

    def priced(self, run: Run, t: int, items: Sequence[WorkItem]) -> Sequence[WorkItem]:
        of_task: dict[str, list[WorkItem]] = {task: [] for task in self.asked}
        for item in items:
            of_task[item.key.partition("/")[0]].append(item)
        return [
            item
            for part, mine in zip(self.parts, of_task.values(), strict=True)
            for item in part.priced(run, t, mine)
        ]


class TaskRows(Rows):
    """What an evaluation has of one task's split, for the checkpoints that `entries` come to."""

    def __init__(self, task: str, split: Split, entries: tuple[str, ...]) -> None:
        self.task, self.split, self.entries = task, split, entries

    @abstractmethod
    def priced(self, run: Run, t: int, items: Sequence[WorkItem]) -> Sequence[WorkItem]:
        """`items`, all of them of this task, with their costs."""


class Evaluate(OverTasks):
    """The checkpoints in `asked` answer `split`: one engine start a task of the array, whatever the number of tasks and checkpoints."""

    name = "evaluate"
    verb = "score"

    @property
    def parts(self) -> "Sequence[Answers]":
        return [Answers(task, self.split, entries) for task, entries in self.asked.items()]

    def place(self, t: int) -> str:
        return f"evals/{self.split}"

    def check(self, run: Run) -> None:
        """Raises SpartaError where a task cannot be asked of the run's models, before anything starts."""
        for part in self.parts:
            part.check(run)

    def make(self, run: Run, t: int, items: Sequence[WorkItem], sinks: Sequence[Sink]) -> None:
        """On one engine. Checkpoints with the same weights are asked once, and the answer is that of each."""
        models = checkpoints(run, [entry for part in self.parts for entry in part.entries])
        alike = _by_weights(models)
        engine = engine_for(run, self.engine(run.recipe), models.values())
        answering = AnswerRequests(engine)
        written = dict(zip(self.asked, sinks, strict=True))
        wanted = {item.key for item in items}
        for done in engine.run(Inbox(answering.requests(_exercises(run, self.parts, models, wanted)))):
            row = answering.hear(done)
            if row is not None:
                for name in alike[models[row.checkpoint].weights]:
                    same = replace(row, checkpoint=name)
                    if same.key in wanted:
                        written[row.task].write(same)


class Answers(TaskRows):
    """The answers to one task's split."""

    rows = Answer

    def folder(self, run: Run, t: int = 0) -> Path:
        way = prompt_format_of(run.recipe, task_named(self.task, run.recipe.data))
        return run.state.evaluation(self.task, self.split).answers(str(way))

    def work(self, run: Run, t: int) -> Sequence[WorkItem]:
        items = items_of(run, self.task, self.split)
        return [
            WorkItem(answer_key(self.task, name, item.item_id), cost=1.0, group=name, base=model.base)
            for name, model in checkpoints(run, self.entries).items()
            for item in items
        ]

    def priced(self, run: Run, t: int, items: Sequence[WorkItem]) -> Sequence[WorkItem]:
        asked = {item.item_id: item for item in items_of(run, self.task, self.split)}
        limit = prompt_format_of(run.recipe, task_named(self.task, run.recipe.data)).limit
        if limit is None:
            return token_costs.of_weighings(run, items, asked)
        return token_costs.of_answers(run, items, asked, self.folder(run, t), limit)

    def check(self, run: Run) -> None:
        """Raises SpartaError where the run's models cannot be asked."""
        checkpoints(run, self.entries)
        way = prompt_format_of(run.recipe, task_named(self.task, run.recipe.data))
        if run.recipe.engine.kind == "api" and way.limit is None:
            raise SpartaError(
                f"{self.task} scores choices by their log-likelihood, which an endpoint cannot compute: leave the task out, or score "
                f"the models in a branch of the run ({quoted('--resume', run.iteration(run.state.last_committed() or 0).root)} --fork DIR --set engine.kind=hf)"
            )
        if run.recipe.engine.kind == "api" and not way.template:
            raise SpartaError(
                f"{self.task} is asked without the chat template, and an endpoint applies its own: set evaluation.chat_template to true"
            )
        if way.template and present(items_file(run, self.task, self.split)):
            asked = items_of(run, self.task, self.split)
            check_prompts(run.recipe, ((item.item_id, item.messages) for item in asked))


def _exercises(
    run: Run, parts: Sequence[Answers], models: Mapping[str, ModelRef], wanted: set[str]
) -> Iterator[EvalItem]:
    """What is `wanted`, one checkpoint of those with the same weights after the other, so that adapters stay together, and so do models of
    one base.
    """
    asked = []
    for part in parts:
        task = task_named(part.task, run.recipe.data)
        items = items_of(run, part.task, part.split)
        asked.append((task, prompt_format_of(run.recipe, task), items))
    for names in sorted(_by_weights(models).values(), key=lambda names: models[names[0]].base):
        for task, way, items in asked:
            for item in items:
                alike = (EvalItem(task, way, name, models[name], item) for name in names)
                yield from islice((exercise for exercise in alike if exercise.key in wanted), 1)


def _by_weights(models: Mapping[str, ModelRef]) -> dict[Hashable, list[str]]:
    """The names of `models`, in their order, by what they have in common where copies have not been trained yet."""
    names: dict[Hashable, list[str]] = {}
    for name, model in models.items():
        names.setdefault(model.weights, []).append(name)
    return names


def spec_in(name: str) -> PhaseSpec | None:
    """What version 0.1.0 wrote in a phase's name: evaluate:test:gsm8k+medqa=iter_00,iter_08;com2=iter_05-adder. None where it is something else."""
    split, _, rest = name.partition(":")[2].partition(":")
    asked: list[tuple[str, tuple[str, ...]]] = []
    for group in rest.split(";"):
        tasks, _, entries = group.partition("=")
        asked += [(task, tuple(entries.split(","))) for task in tasks.split("+")]
    known = next((each for each in get_args(Split) if each == split), None)
    if known is None or any(entries == ("",) for _, entries in asked):
        return None
    return PhaseSpec(known, tuple(asked))


def _as_folder(task: str) -> str:
    """`task`, when it may become a folder's name."""
    if not re.fullmatch(r"\w+", task):
        raise SpartaError(f"there is no task {task!r}")
    return task

"""Evaluate: checkpoints answer the items of one split of several tasks, once, with greedy decoding; each task grades (section 3).

Its work items have keys like those of any phase, so evaluation is sharded and resumed by key: more checkpoints or tasks only add keys.
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
    """The models that `entries` name, by checkpoint name, without duplicates. Raises SpartaError for an unknown checkpoint."""
    found: dict[str, ModelRef] = {}
    for entry in entries:
        t, name = parse_checkpoint(entry)
        models = references(run, t)
        if name and name not in models:
            raise SpartaError(
                f"there is no checkpoint {entry}: name one of that iteration's models, {', '.join(models)}"
            )
        for model in [name] if name else models:
            found[checkpoint_name(run, t, model)] = models[model]
    return found


class EvaluationPhase(ArrayPhase):
    """A phase of an evaluation: one array for several tasks, each with its own rows. Its methods ignore t."""

    verb: ClassVar[str]

    def __init__(self, split: Split, asked: EntriesByTask) -> None:
        self.split = split
        self.requested = {_as_folder(task): tuple(entries) for task, entries in asked.items()}
        self.spec = PhaseSpec(split, tuple(self.requested.items()))

    @classmethod
    def of(cls, spec: PhaseSpec) -> Self:
        """The phase for `spec`."""
        return cls(spec.split, dict(spec.asked))

    @property
    def title(self) -> str:
        return f"{self.verb} {', '.join(self.requested)} {self.split}"

    @property
    @abstractmethod
    def parts(self) -> "Sequence[TaskRows]":
        """One for each task, in the order of `asked`."""

    def work(self, run: Run, t: int) -> Sequence[WorkItem]:
        return [item for part in self.parts for item in part.work(run, t)]

    def missing(self, run: Run, t: int) -> Sequence[WorkItem]:
        return [item for part in self.parts for item in part.missing(run, t)]

    def priced(self, run: Run, t: int, items: Sequence[WorkItem]) -> Sequence[WorkItem]:
        of_task: dict[str, list[WorkItem]] = {task: [] for task in self.requested}
        for item in items:
            of_task[item.key.partition("/")[0]].append(item)
        return [
            item
            for part, mine in zip(self.parts, of_task.values(), strict=True)
            for item in part.priced(run, t, mine)
        ]


class TaskRows(Rows):
    """The rows of an evaluation of one task's split, for the checkpoints that `entries` name."""

    def __init__(self, task: str, split: Split, entries: tuple[str, ...]) -> None:
        self.task, self.split, self.entries = task, split, entries

    @abstractmethod
    def priced(self, run: Run, t: int, items: Sequence[WorkItem]) -> Sequence[WorkItem]:
        """`items`, all of this task, with their costs."""


class Evaluate(EvaluationPhase):
    """The checkpoints in `requested` answer `split`. Each task of the array starts one engine, for any number of tasks and checkpoints."""

    name = "evaluate"
    verb = "score"

    @property
    def parts(self) -> "Sequence[Answers]":
        return [Answers(task, self.split, entries) for task, entries in self.requested.items()]

    def place(self, t: int) -> str:
        return f"evals/{self.split}"

    def check(self, run: Run) -> None:
        """Raises SpartaError, before anything starts, if the run's models cannot be scored on a task."""
        for part in self.parts:
            part.check(run)

    def make(self, run: Run, t: int, items: Sequence[WorkItem], sinks: Sequence[Sink]) -> None:
        """Make the answers on one engine, which gets only the checkpoints that lack some: adapters of others may have been removed.

        Of checkpoints with the same weights one is run, and its answers count for all.
        """
        asked = {item.group for item in items}
        every = checkpoints(run, [entry for part in self.parts for entry in part.entries])
        models = {name: model for name, model in every.items() if name in asked}
        alike = _by_weights(models)
        engine = engine_for(run, self.engine(run.recipe), models.values())
        requests = AnswerRequests(engine)
        sink_of = dict(zip(self.requested, sinks, strict=True))
        keys = {item.key for item in items}
        for done in engine.run(Inbox(requests.requests(_eval_items(run, self.parts, models, keys)))):
            row = requests.on_reply(done)
            if row is not None:
                for name in alike[models[row.checkpoint].weights]:
                    same = replace(row, checkpoint=name)
                    if same.key in keys:
                        sink_of[row.task].write(same)


class Answers(TaskRows):
    """The answers to one task's split."""

    rows = Answer

    def folder(self, run: Run, t: int = 0) -> Path:
        prompt_format = prompt_format_of(run.recipe, task_named(self.task, run.recipe.data))
        return run.state.evaluation(self.task, self.split).answers(str(prompt_format))

    def work(self, run: Run, t: int) -> Sequence[WorkItem]:
        items = items_of(run, self.task, self.split)
        return [
            WorkItem(answer_key(self.task, name, item.item_id), cost=1.0, group=name, base=model.base)
            for name, model in checkpoints(run, self.entries).items()
            for item in items
        ]

    def priced(self, run: Run, t: int, items: Sequence[WorkItem]) -> Sequence[WorkItem]:
        questions = {item.item_id: item for item in items_of(run, self.task, self.split)}
        limit = prompt_format_of(run.recipe, task_named(self.task, run.recipe.data)).limit
        if limit is None:
            return token_costs.of_log_likelihoods(run, items, questions)
        return token_costs.of_answers(run, items, questions, self.folder(run, t), limit)

    def check(self, run: Run) -> None:
        """Raises SpartaError if the run's models cannot be scored on the task."""
        checkpoints(run, self.entries)
        prompt_format = prompt_format_of(run.recipe, task_named(self.task, run.recipe.data))
        if run.recipe.engine.kind == "api" and prompt_format.limit is None:
            raise SpartaError(
                f"{self.task} scores choices by their log-likelihood, which an endpoint cannot compute: leave the task out, or score "
                f"the models in a branch of the run ({quoted('--resume', run.iteration(run.state.last_committed() or 0).root)} --fork DIR --set engine.kind=hf)"
            )
        if run.recipe.engine.kind == "api" and not prompt_format.template:
            raise SpartaError(
                f"{self.task} is prompted without the chat template, but an endpoint applies its own: set evaluation.chat_template to true"
            )
        if prompt_format.template and present(items_file(run, self.task, self.split)):
            items = items_of(run, self.task, self.split)
            check_prompts(run.recipe, ((item.item_id, item.messages) for item in items))


def _eval_items(
    run: Run, parts: Sequence[Answers], models: Mapping[str, ModelRef], keys: set[str]
) -> Iterator[EvalItem]:
    """The items with these `keys`, ordered by base and weights, so that adapters stay together. Checkpoints with the same weights share one."""
    by_task = []
    for part in parts:
        task = task_named(part.task, run.recipe.data)
        items = items_of(run, part.task, part.split)
        by_task.append((task, prompt_format_of(run.recipe, task), items))
    for names in sorted(_by_weights(models).values(), key=lambda names: models[names[0]].base):
        for task, prompt_format, items in by_task:
            for item in items:
                alike = (EvalItem(task, prompt_format, name, models[name], item) for name in names)
                yield from islice((one for one in alike if one.key in keys), 1)


def _by_weights(models: Mapping[str, ModelRef]) -> dict[Hashable, list[str]]:
    """The names of `models` grouped by weights, which copies share until they are trained."""
    names: dict[Hashable, list[str]] = {}
    for name, model in models.items():
        names.setdefault(model.weights, []).append(name)
    return names


def spec_in(name: str) -> PhaseSpec | None:
    """The spec in a phase name of version 0.1.0, such as evaluate:test:gsm8k+medqa=iter_00,iter_08;com2=iter_05-adder; None if it has none."""
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
    """`task`, if it is safe as a folder name. Raises SpartaError otherwise."""
    if not re.fullmatch(r"\w+", task):
        raise SpartaError(
            f"there is no task {task!r}: a task's name has only letters, digits and underscores"
        )
    return task

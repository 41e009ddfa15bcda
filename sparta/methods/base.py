"""What a method is: which phases make an iteration, who learns in it, what it comes to, and what is said of it afterwards.

A method is one file in this folder: a subclass of `Method`, and its one instance as `METHOD`, by which the registry finds it. It may bring phases
of its own. What runs, watches and estimates runs asks the method, and knows none by name.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from sparta.errors import SpartaError
from sparta.phases.base import Phase
from sparta.phases.init_pool import InitPool
from sparta.phases.train import everyone
from sparta.phases.train_experts import TrainExperts
from sparta.recipes.schema import Recipe
from sparta.store.records import Row, TrainedExpert
from sparta.store.run import Run
from sparta.store.shards import read_shards
from sparta.tasks.base import Item

INIT_POOL: tuple[Phase, ...] = (TrainExperts(), InitPool())
"""The phases of iteration 0, of every method: they make the initial pool."""


@dataclass(frozen=True)
class IterationWork:
    """One iteration in numbers, if every combat makes a pair. what: in words, a part a phase. tokens: most that may be generated, prompts not
    counted. updates: of weights."""

    what: tuple[str, ...]
    tokens: int
    updates: int


@dataclass(frozen=True)
class Lengths:
    """Mean tokens of what is asked and written. prompt, answer: of a response. judge_prompt, vote: of a vote."""

    prompt: float
    answer: float
    judge_prompt: float
    vote: float


@dataclass(frozen=True)
class Summary:
    """An iteration after it was made, for people: a table and sentences below it. text_columns: of the table's columns, how many hold text."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    text_columns: int = 1


class Method(ABC):
    """How a pool is aligned. Stateless: everything that it needs to know is in the run."""

    name: ClassVar[str]
    """What `method` of a recipe calls it."""
    fewest_members: ClassVar[int]
    """Of the pool, that it can work with."""
    has_reputations: ClassVar[bool] = True
    """Whether reputations move in it; otherwise they are carried over, and nobody is shown them."""

    @abstractmethod
    def iteration(self, recipe: Recipe) -> tuple[Phase, ...]:
        """The phases of an iteration from the first on, in order."""

    @property
    @abstractmethod
    def all_phases(self) -> Iterable[Phase]:
        """Every phase that `iteration` gives for some recipe."""

    @abstractmethod
    def summary(self, run: Run, t: int) -> Summary:
        """Iteration t >= 1 as it came out. Its stats and its standing are there."""

    def learners(self, run: Run, t: int) -> Sequence[str]:
        """The members that learn in iteration t, in the order of the pool: all of them, for most. The others are carried over unchanged."""
        return everyone(run, t)

    def gold(self, recipe: Recipe) -> Sequence[Item]:
        """The instructions with their gold answers, where the method needs these: they become a file of the run. None, for most.

        Raises SpartaError where the data has none.
        """
        return ()

    def phases(self, recipe: Recipe, t: int) -> tuple[Phase, ...]:
        """The phases of iteration t, in order. Where no expert is trained from data, a run begins with iteration 0 made."""
        if t > 0:
            return self.iteration(recipe)
        return INIT_POOL if recipe.pool.experts else INIT_POOL[-1:]

    def work(self, run: Run) -> IterationWork:
        """What one iteration comes to at most."""
        expected = [phase.expected(run, 1) for phase in self.iteration(run.recipe)]
        return IterationWork(
            what=tuple(one.what for one in expected if one.what),
            tokens=sum(one.tokens for one in expected),
            updates=sum(one.updates for one in expected),
        )

    def tokens_of_prompt(self, recipe: Recipe, lengths: Lengths) -> float | None:
        """Tokens that a prompt comes to at most, generated, read and trained on together; None where the method takes no budget."""
        return None

    def row_types(self, run: Run) -> Mapping[str, type[Row]]:
        """What the folders of shards of an iteration hold, by their names."""
        parts = (part for phase in self.all_phases for part in phase.parts)
        return {part.folder(run, 1).name: part.rows for part in parts}

    def check(self, recipe: Recipe) -> None:
        """Raises SpartaError where `recipe` cannot be run with this method."""
        m = len(recipe.pool.models)
        if m < self.fewest_members:
            raise SpartaError(
                f"the pool has {m} model{'s' * (m != 1)}, and the method {self.name} needs {self.fewest_members} at least: name more in pool.models"
            )


def summary_of_pool(run: Run) -> Summary:
    """What every expert of the initial pool was trained on from data, and its losses."""
    rows = read_shards(run.iteration(0).training, TrainedExpert)

    def cells(name: str, data: str) -> Sequence[str]:
        row = rows[name]
        losses = ("" if loss is None else f"{loss:.3f}" for loss in (row.first_loss, row.last_loss))
        return (
            name,
            data,
            f"{row.rows:,}",
            f"{row.dropped:,}",
            f"{row.steps:,}",
            *losses,
            f"{row.seconds:.0f}",
        )

    return Summary(
        "initial pool: experts from data",
        ("model", "data", "rows", "dropped", "updates", "first loss", "last loss", "seconds"),
        tuple(tuple(cells(name, described.data)) for name, described in run.sft_data.items()),
        text_columns=2,
    )

"""The interface of a method: the phases of an iteration, who learns in it, how much work it is, and its summary.

A method is one file in this folder, with a subclass of `Method` and its instance `METHOD`, which the registry finds. It may define phases
of its own. The launchers, `status` and estimates use only this interface and know no method by name.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from sparta.store.stats import IterationStats
from sparta.tasks.base import Item

INIT_POOL: tuple[Phase, ...] = (TrainExperts(), InitPool())
"""The phases of iteration 0, of every method: they make the initial pool."""


@dataclass(frozen=True)
class IterationWork:
    """The work of one iteration, if every combat makes a pair. what: one description per phase. tokens: most that may be generated, without
    prompts. updates: weight updates."""

    what: tuple[str, ...]
    tokens: int
    updates: int


@dataclass(frozen=True)
class Lengths:
    """Mean lengths in tokens: prompt and answer of a response; judge_prompt and vote of a vote."""

    prompt: float
    answer: float
    judge_prompt: float
    vote: float


@dataclass(frozen=True)
class IterationSummary:
    """A finished iteration, for display: a table, and notes below it. text_columns: how many of the first columns hold text."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    text_columns: int = 1


class Method(ABC):
    """How a pool is aligned. Stateless: all that it needs is in the run."""

    name: ClassVar[str]
    """The value of `method` in a recipe."""
    fewest_members: ClassVar[int]
    """The smallest pool that it works with."""
    unit: ClassVar[str] = "combats"
    """What `combats` of a recipe counts, for messages; the `unit` of its IterationStats."""
    has_reputations: ClassVar[bool] = True
    """Whether its iterations change reputations; if not, they are carried over and not shown."""

    @abstractmethod
    def iteration(self, recipe: Recipe) -> tuple[Phase, ...]:
        """The phases of an iteration t >= 1, in order."""

    @property
    @abstractmethod
    def all_phases(self) -> Iterable[Phase]:
        """Every phase that `iteration` returns for any recipe."""

    @abstractmethod
    def summary(self, run: Run, t: int) -> IterationSummary:
        """The results of iteration t >= 1, whose stats and standing exist."""

    def learners(self, run: Run, t: int) -> Sequence[str]:
        """The members that learn in iteration t, in pool order; by default all. The others are carried over unchanged."""
        return everyone(run, t)

    def gold(self, recipe: Recipe) -> Sequence[Item]:
        """The instructions with their gold answers, stored with the run; empty for methods that need none.

        Raises SpartaError if the data has no gold answers.
        """
        return ()

    def phases(self, recipe: Recipe, t: int) -> tuple[Phase, ...]:
        """The phases of iteration t, in order. Iteration 0 trains experts only if the recipe has any."""
        if t > 0:
            return self.iteration(recipe)
        return INIT_POOL if recipe.pool.experts else INIT_POOL[-1:]

    def work(self, run: Run) -> IterationWork:
        """The most work that one iteration can be."""
        expected = [phase.expected(run, 1) for phase in self.iteration(run.recipe)]
        return IterationWork(
            what=tuple(one.what for one in expected if one.what),
            tokens=sum(one.tokens for one in expected),
            updates=sum(one.updates for one in expected),
        )

    def tokens_of_prompt(self, recipe: Recipe, lengths: Lengths) -> float | None:
        """The most tokens per prompt: generated, read and trained on together. None if the method takes no budget."""
        return None

    def row_types(self, run: Run) -> Mapping[str, type[Row]]:
        """The row type of each folder of shards in an iteration, by folder name."""
        parts = (part for phase in self.all_phases for part in phase.parts)
        return {part.folder(run, 1).name: part.rows for part in parts}

    def check(self, recipe: Recipe) -> None:
        """Raises SpartaError if `recipe` cannot be run with this method."""
        m = len(recipe.pool.models)
        if m < self.fewest_members:
            raise SpartaError(
                f"the pool has {m} model{'s' * (m != 1)}, but the method {self.name} needs at least {self.fewest_members}: add models to pool.models"
            )


def notes_on(stats: IterationStats, answer: str, more: Iterable[tuple[int, str]] = ()) -> Iterator[str]:
    """Lines below the table of an iteration: how many preference pairs were made, and anything unusual. answer: what the method calls a response.

    more: counts of the method's own, with their descriptions; like the others, a count of 0 is left out.
    """
    yield stats.in_words
    if stats.warning:
        yield f"warning: {stats.warning}"
    votes_cut = sum(judge.cut for judge in stats.judges.values())
    for number, what in (
        (votes_cut, f"votes were on a {answer} truncated to fit the judge's context"),
        (stats.too_long, f"prompts left no room for a {answer} in the context"),
        (
            sum(stats.dropped_pairs.values()),
            "pairs could not be trained on (longer than dpo.max_length, or without a token)",
        ),
        *more,
    ):
        if number:
            yield f"  {number:,} {what}"


def summary_of_pool(run: Run) -> IterationSummary:
    """The data and the losses of every expert of the initial pool that was trained from data."""
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

    return IterationSummary(
        "initial pool: experts from data",
        ("model", "data", "rows", "dropped", "updates", "first loss", "last loss", "seconds"),
        tuple(tuple(cells(name, described.data)) for name, described in run.sft_data.items()),
        text_columns=2,
    )

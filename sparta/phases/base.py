"""What a phase is: work with keys, and how to do some of it.

Complete means that every key is there, not that every shard file is: shards are only how keys were dealt out this time. A phase can be
started again at any moment by anyone who can read the state.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import msgspec

from sparta.recipes import engine as recipe_engine
from sparta.recipes.schema import Recipe
from sparta.store.records import Row
from sparta.store.run import Run
from sparta.store.shards import ShardWriter, done_keys
from sparta.tasks.base import Split


class PhaseSpec(msgspec.Struct, frozen=True):
    """What a phase was asked for where its name does not say it all: which split, and of which tasks by whom, in order.

    By whom: iterations ("iter_00": all its models) and checkpoints ("iter_05-adder").
    """

    split: Split
    asked: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class WorkItem:
    """One piece of work. cost: estimated, in generated tokens. group: items of one group share all weights, those of one base its weights at least.

    bundle: consecutive items of one bundle are done by one task, as they share more than weights: the beginning of their prompts, say.
    """

    key: str
    cost: float
    group: str
    base: str = ""
    bundle: str = ""


class Sink:
    """Where a phase puts what it made: rows go to the shard file at once, progress to whoever watches (in items, fractions allowed)."""

    def __init__(self, writer: ShardWriter, watch: Callable[[float], None]) -> None:
        self._writer = writer
        self._watch = watch
        self._ahead = 0.0

    def write(self, row: Row) -> None:
        """Put one finished row on disk; it counts as one item, less what `advance` already reported of it."""
        self._writer.write(row)
        self._watch(1.0 - self._ahead)
        self._ahead = 0.0

    def flush(self) -> None:
        """Bring every row to the disk."""
        self._writer.flush()

    def advance(self, share: float) -> None:
        """Report that the item in work has come to `share` (0 to 1) of itself."""
        self._watch(share - self._ahead)
        self._ahead = share


class Phase(ABC):
    """A phase of an iteration. `device` says what a task of it needs."""

    name: str
    spec: PhaseSpec | None = None
    device: ClassVar[Literal["gpu", "cpu"]]
    alternatives: ClassVar[tuple[str, ...]] = ()
    """Phases that make the same rows in another way: tasks of theirs, which an earlier launch started, are waited for."""

    @property
    def title(self) -> str:
        """What people see."""
        return self.name

    def place(self, t: int) -> str:
        """Where below jobs/ the attempts of this phase are kept."""
        return f"iter_{t:02d}/{self.name}"

    @abstractmethod
    def work(self, run: Run, t: int) -> Sequence[WorkItem]:
        """All items of iteration t: a pure function of the state."""

    @abstractmethod
    def missing(self, run: Run, t: int) -> Sequence[WorkItem]:
        """The items of `work` that have no result yet."""

    @abstractmethod
    def perform(
        self,
        run: Run,
        t: int,
        keys: Collection[str],
        attempt: int,
        shard: int,
        watch: Callable[[float], None],
        start: int = 0,
    ) -> None:
        """Do those of `keys` that are still missing, as shard `shard` of attempt `attempt`, started again `start` times."""


class Rows(ABC):
    """One kind of rows that an array phase makes, in one folder of shard files."""

    rows: type[Row]

    @abstractmethod
    def folder(self, run: Run, t: int) -> Path:
        """Where the shard files are."""

    @abstractmethod
    def work(self, run: Run, t: int) -> Sequence[WorkItem]:
        """The items whose rows these are."""

    def missing(self, run: Run, t: int) -> Sequence[WorkItem]:
        done = done_keys(self.folder(run, t), self.rows)
        return [item for item in self.work(run, t) if item.key not in done]


class ArrayPhase(Phase):
    """A phase that is dealt to an array of tasks and whose result is one row a key, in folders of shard files."""

    device = "gpu"
    needs_plan: ClassVar[bool] = True
    """Whether its items are known only when the iteration is planned."""

    @property
    @abstractmethod
    def parts(self) -> Sequence[Rows]:
        """The kinds of rows that it makes: itself, for most."""

    @abstractmethod
    def make(self, run: Run, t: int, items: Sequence[WorkItem], sinks: Sequence[Sink]) -> None:
        """Make the rows of `items`, in any order, each written as soon as it is there to the sink of its part; sinks are in the order of `parts`."""

    def engine(self, recipe: Recipe) -> recipe_engine.EngineSettings:
        """The settings of the engine that its tasks use: the pool's, for most."""
        return recipe.engine

    def priced(self, run: Run, t: int, items: Sequence[WorkItem]) -> Sequence[WorkItem]:
        """`items` with costs as they are known by now. May read rows: for dealing alone."""
        return items

    def perform(
        self,
        run: Run,
        t: int,
        keys: Collection[str],
        attempt: int,
        shard: int,
        watch: Callable[[float], None],
        start: int = 0,
    ) -> None:
        wanted = set(keys)
        items = [item for item in self.missing(run, t) if item.key in wanted]
        if not items:
            return
        flush_seconds = run.recipe.cluster.flush_seconds
        with ExitStack() as writers:
            sinks = [
                Sink(
                    writers.enter_context(
                        ShardWriter(part.folder(run, t), attempt, shard, flush_seconds, start)
                    ),
                    watch,
                )
                for part in self.parts
            ]
            self.make(run, t, items, sinks)


class RowPhase(Rows, ArrayPhase):
    """An array phase of one kind of rows."""

    @property
    def parts(self) -> Sequence[Rows]:
        return [self]

    @abstractmethod
    def execute(self, run: Run, t: int, items: Sequence[WorkItem], sink: Sink) -> None:
        """Make the rows of `items`, in any order, each written as soon as it is there."""

    def make(self, run: Run, t: int, items: Sequence[WorkItem], sinks: Sequence[Sink]) -> None:
        [sink] = sinks
        self.execute(run, t, items, sink)


class Step(Phase):
    """A phase that is one piece of work on one CPU and whose result is whole files. A `light` one takes a moment, wherever it is done."""

    device = "cpu"
    light: ClassVar[bool] = False

    @abstractmethod
    def done(self, run: Run, t: int) -> bool:
        """Whether its last file is in place."""

    @abstractmethod
    def execute(self, run: Run, t: int) -> None:
        """Write its files, the one that `done` looks for last."""

    def work(self, run: Run, t: int) -> Sequence[WorkItem]:
        return [WorkItem(self.name, cost=1.0, group=self.name)]

    def missing(self, run: Run, t: int) -> Sequence[WorkItem]:
        return [] if self.done(run, t) else self.work(run, t)

    def perform(
        self,
        run: Run,
        t: int,
        keys: Collection[str],
        attempt: int,
        shard: int,
        watch: Callable[[float], None],
        start: int = 0,
    ) -> None:
        if not self.done(run, t):
            self.execute(run, t)
        watch(1.0)

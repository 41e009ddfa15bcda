"""What a phase is: work with keys, how to do some of it, and what it says of itself: resources, cost, rows, what people see.

Complete means that every key is there, not that every shard file is: shards are only how the keys were assigned this time. Anyone who can
read the state can start a phase again at any moment. What runs, watches and estimates phases asks them, and knows none by name.
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
from sparta.store.disk import present
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
        self._ahead: dict[str, float] = {}

    def write(self, row: Row) -> None:
        """Put one finished row on disk; it counts as one item, less what `advance` already reported of it."""
        self._writer.write(row)
        self._watch(1.0 - self._ahead.pop(row.key, 0.0))

    def skip(self, items: int) -> None:
        """Report that so many items have turned out to be unneeded: no row will come."""
        self._watch(float(items))

    def flush(self) -> None:
        """Bring every row to the disk."""
        self._writer.flush()

    def advance(self, key: str, share: float) -> None:
        """Report that the item `key` has come to `share` (0 to 1) of itself."""
        self._watch(share - self._ahead.get(key, 0.0))
        self._ahead[key] = share


Device = Literal["gpu", "cpu"]


@dataclass(frozen=True)
class Expected:
    """What a phase of one iteration comes to, before it is known.

    what: for the plan, such as "2,000 responses"; empty where it is not worth a word. bundles: pieces that it can be sharded into. cost: in the
    unit of `WorkItem.cost`. tokens: that may be generated at most, prompts not counted. updates: of weights. seconds: of each training, by
    assumed rates; empty for a phase that trains nothing.
    """

    what: str = ""
    bundles: int = 1
    cost: float = 0.0
    tokens: int = 0
    updates: int = 0
    seconds: tuple[float, ...] = ()


class Phase(ABC):
    """A phase of an iteration: an array of tasks (`ArrayPhase`) or one piece of work (`Step`)."""

    name: str
    spec: PhaseSpec | None = None
    device: ClassVar[Device]
    """What a task of it needs, where no endpoint does the work; see `runs_on`."""
    is_array: ClassVar[bool]
    """Whether it is sharded into an array of tasks; otherwise it is one piece of work."""
    light: ClassVar[bool] = False
    """Whether it takes a moment, wherever it is done: a driver does it itself."""
    trains: ClassVar[bool] = False
    """Whether its tasks change weights instead of running an engine."""
    gives_plan: ClassVar[bool] = False
    """Whether it writes the plan, without which the items of phases that need it (`needs_plan`) are not known."""
    needs_plan: ClassVar[bool] = False
    has_column: ClassVar[bool] = True
    """Whether the table of `status` has a column for it."""
    engine_key: ClassVar[str] = "engine"
    """Where in a recipe the settings of its engine are."""
    alternatives: ClassVar[tuple[str, ...]] = ()
    """Phases that make the same rows in another way: tasks of theirs, which an earlier launch started, are waited for."""

    @property
    def title(self) -> str:
        """What people see."""
        return self.name

    @property
    def parts(self) -> "Sequence[Rows]":
        """The kinds of rows that it makes; none where its result is whole files."""
        return ()

    def engine(self, recipe: Recipe) -> recipe_engine.EngineSettings:
        """The settings of the engine that its tasks use: the pool's, for most."""
        return recipe.engine

    @property
    def runs_an_engine(self) -> bool:
        """Whether its tasks load a base to generate with, and so have a start that only pays with enough work after it."""
        return self.is_array and not self.trains

    def asks_an_endpoint(self, recipe: Recipe) -> bool:
        """Whether its tasks have no model of their own: an endpoint generates for them."""
        return self.runs_an_engine and self.engine(recipe).kind == "api"

    def runs_on(self, recipe: Recipe) -> Device:
        """What its tasks run on."""
        return "cpu" if self.asks_an_endpoint(recipe) else self.device

    def gpus(self, recipe: Recipe) -> int:
        """GPUs that hold one base together, of one task; 0 where it needs none."""
        return self.engine(recipe).gpus if self.runs_on(recipe) == "gpu" else 0

    def expected(self, run: Run, t: int) -> Expected:
        """What iteration t of it comes to, before its items are known."""
        return Expected()

    def is_countable(self, run: Run, t: int) -> bool:
        """Whether its items are known by now."""
        return not self.needs_plan or present(run.iteration(t).plan)

    def priced(self, run: Run, t: int, items: "Sequence[WorkItem]") -> "Sequence[WorkItem]":
        """`items` with costs as they are known by now. May read rows: for sharding alone."""
        return items

    def place(self, t: int) -> str:
        """Where below jobs/ the attempts of this phase are kept."""
        return f"iter_{t:02d}/{self.name}"

    @abstractmethod
    def work(self, run: Run, t: int) -> Sequence[WorkItem]:
        """All items of iteration t: a pure function of the state."""

    @abstractmethod
    def missing(self, run: Run, t: int) -> Sequence[WorkItem]:
        """The items of `work` that have no result yet."""

    def final(self, run: Run, t: int) -> bool:
        """Whether `work` is what it will be. Until then items may turn out to be unneeded, never more of them needed."""
        return True

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
    """A phase that is sharded into an array of tasks and whose result is one row a key, in folders of shard files."""

    device = "gpu"
    is_array = True
    needs_plan = True

    @property
    @abstractmethod
    def parts(self) -> Sequence[Rows]:
        """The kinds of rows that it makes: itself, for most."""

    @abstractmethod
    def make(self, run: Run, t: int, items: Sequence[WorkItem], sinks: Sequence[Sink]) -> None:
        """Make the rows of `items`, in any order, each written as soon as it is there to the sink of its part; sinks are in the order of `parts`."""

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
    """A phase that is one piece of work on one CPU and whose result is whole files."""

    device = "cpu"
    is_array = False

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

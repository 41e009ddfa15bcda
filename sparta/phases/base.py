"""The interface of a phase: its work items with keys, how to do them, and its resources, cost, rows and title.

A phase is complete when every key has a row, whatever shard file it is in: shards are only how keys were assigned this time. Anyone who
can read the state can restart a phase at any time. The launchers, `status` and estimates use only this interface and know no phase by name.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import msgspec

from sparta.engines.stopwatch import SET_UP
from sparta.recipes import engine as recipe_engine
from sparta.recipes.schema import Recipe
from sparta.store.disk import present
from sparta.store.records import Row
from sparta.store.run import Run
from sparta.store.shards import ShardWriter, done_keys
from sparta.tasks.base import Split


class SampleSettings(msgspec.Struct, frozen=True):
    """How several answers to one item are sampled: how many, with which temperature, top-p and top-k, to the first `items` of the split (None: all)."""

    samples: int
    temperature: float
    top_p: float
    top_k: int
    items: int | None = None


class PhaseSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """The request of an evaluation phase, in addition to its name: the split, and each task with the entries to score, in order.

    Entries are iterations ("iter_00": all its models) and checkpoints ("iter_05-adder"). sampled: only of phases about sampled answers.
    """

    split: Split
    asked: tuple[tuple[str, tuple[str, ...]], ...]
    sampled: SampleSettings | None = None


@dataclass(frozen=True)
class WorkItem:
    """One unit of work. cost: estimated, in generated tokens. group: items of one group use the same model; items of one base share at least its
    weights. bundle: consecutive items of one bundle go to one task, because they share more than weights, such as a prompt prefix.
    """

    key: str
    cost: float
    group: str
    base: str = ""
    bundle: str = ""


class Sink:
    """Takes a phase's output: rows go to the shard file at once, progress (in items, or fractions of them) to the `watch` callback."""

    def __init__(self, writer: ShardWriter, watch: Callable[[float], None]) -> None:
        self._writer = writer
        self._watch = watch
        self._ahead: dict[str, float] = {}

    def write(self, row: Row) -> None:
        """Write one finished row; it counts as one item, minus what `advance` has already reported."""
        self._writer.write(row)
        self._watch(1.0 - self._ahead.pop(row.key, 0.0))

    def skip(self, items: int) -> None:
        """Report that this many items turned out to be unnecessary and get no row."""
        self._watch(float(items))

    def flush(self) -> None:
        """Flush all rows to disk."""
        self._writer.flush()

    def advance(self, key: str, share: float) -> None:
        """Report that `share` (0 to 1) of the item `key` is done."""
        self._watch(share - self._ahead.get(key, 0.0))
        self._ahead[key] = share


Device = Literal["gpu", "cpu"]


@dataclass(frozen=True)
class Expected:
    """An estimate of a phase's work in one iteration, before its items are known.

    what: for the plan, such as "2,000 responses"; empty if not worth mentioning. bundles: how many pieces it can be sharded into. cost: in the
    unit of `WorkItem.cost`. tokens: most that may be generated, without prompts. updates: weight updates. seconds: of each training job, by
    assumed rates; empty for a phase that trains nothing.
    """

    what: str = ""
    bundles: int = 1
    cost: float = 0.0
    tokens: int = 0
    updates: int = 0
    seconds: tuple[float, ...] = ()


class Phase(ABC):
    """A phase of an iteration: an array of tasks (`ArrayPhase`) or a single task (`Step`)."""

    name: str
    spec: PhaseSpec | None = None
    device: ClassVar[Device]
    """What its tasks need, unless an endpoint does the work; see `runs_on`."""
    is_array: ClassVar[bool]
    """Whether it is sharded into an array of tasks; otherwise it is a single task."""
    light: ClassVar[bool] = False
    """Whether it is so fast that the driver runs it itself."""
    trains: ClassVar[bool] = False
    """Whether its tasks change weights instead of running an engine."""
    gives_plan: ClassVar[bool] = False
    """Whether it writes the plan, which determines the items of phases with `needs_plan`."""
    needs_plan: ClassVar[bool] = False
    has_column: ClassVar[bool] = True
    """Whether it has a column in the table of `status`."""
    engine_key: ClassVar[str] = "engine"
    """The recipe key of its engine's settings."""
    alternatives: ClassVar[tuple[str, ...]] = ()
    """Phases that make the same rows differently. If an earlier launch started tasks of theirs, this phase waits for them."""

    @property
    def title(self) -> str:
        """The name that users see."""
        return self.name

    @property
    def parts(self) -> "Sequence[Rows]":
        """The kinds of rows that it makes; empty if its result is whole files."""
        return ()

    @property
    def time_part(self) -> str:
        """What its tasks' time counts as, apart from engine starts and the updates of a training; see sparta/cluster/account.py."""
        return SET_UP if self.trains else self.name

    @property
    def shares_time(self) -> "Mapping[str, RowPhase]":
        """Where it makes several kinds of rows at the same time: by part, the rows whose seconds say how much of the time is theirs."""
        return {}

    def engine(self, recipe: Recipe) -> recipe_engine.EngineSettings:
        """The settings of the engine that its tasks use; by default the pool's."""
        return recipe.engine

    @property
    def runs_an_engine(self) -> bool:
        """Whether its tasks start an engine, which takes so long that a task should have enough work."""
        return self.is_array and not self.trains

    def asks_an_endpoint(self, recipe: Recipe) -> bool:
        """Whether its tasks load no model and call an endpoint instead."""
        return self.runs_an_engine and self.engine(recipe).kind == "api"

    def runs_on(self, recipe: Recipe) -> Device:
        """What its tasks run on."""
        return "cpu" if self.asks_an_endpoint(recipe) else self.device

    def gpus(self, recipe: Recipe) -> int:
        """GPUs per task, which hold one base together; 0 if it needs none."""
        return self.engine(recipe).gpus if self.runs_on(recipe) == "gpu" else 0

    @property
    def gpus_key(self) -> str:
        """The recipe key that decides `gpus`."""
        return f"{self.engine_key}.vllm.tensor_parallel"

    def expected(self, run: Run, t: int) -> Expected:
        """An estimate of its work in iteration t, before its items are known."""
        return Expected()

    def is_countable(self, run: Run, t: int) -> bool:
        """Whether its items are known yet."""
        return not self.needs_plan or present(run.iteration(t).plan)

    def priced(self, run: Run, t: int, items: "Sequence[WorkItem]") -> "Sequence[WorkItem]":
        """`items` with better cost estimates, for sharding. May read rows."""
        return items

    def place(self, t: int) -> str:
        """The folder below jobs/ with the attempts of this phase."""
        return f"iter_{t:02d}/{self.name}"

    @abstractmethod
    def work(self, run: Run, t: int) -> Sequence[WorkItem]:
        """All items of iteration t: a pure function of the state."""

    @abstractmethod
    def missing(self, run: Run, t: int) -> Sequence[WorkItem]:
        """The items of `work` without a result."""

    def final(self, run: Run, t: int) -> bool:
        """Whether `work` can no longer change. Until then items may turn out to be unnecessary, but none are added."""
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
        """Do those of `keys` that are still missing, as shard `shard` of attempt `attempt`, after `start` restarts."""


class Rows(ABC):
    """One kind of rows that an array phase makes, in one folder of shard files."""

    rows: type[Row]

    @abstractmethod
    def folder(self, run: Run, t: int) -> Path:
        """The folder of the shard files."""

    @abstractmethod
    def work(self, run: Run, t: int) -> Sequence[WorkItem]:
        """The items whose rows these are."""

    def missing(self, run: Run, t: int) -> Sequence[WorkItem]:
        done = done_keys(self.folder(run, t), self.rows)
        return [item for item in self.work(run, t) if item.key not in done]


class ArrayPhase(Phase):
    """A phase that is sharded into an array of tasks. Its result is one row per key, in folders of shard files."""

    device = "gpu"
    is_array = True
    needs_plan = True

    @property
    @abstractmethod
    def parts(self) -> Sequence[Rows]:
        """The kinds of rows that it makes; for a `RowPhase`, itself."""

    @property
    def shares_time(self) -> "Mapping[str, RowPhase]":
        apart = {part.time_part: part for part in self.parts if isinstance(part, RowPhase)}
        return apart if len(apart) > 1 else {}

    @abstractmethod
    def make(self, run: Run, t: int, items: Sequence[WorkItem], sinks: Sequence[Sink]) -> None:
        """Make the rows of `items`, in any order, and write each to the sink of its part as soon as it is ready. sinks: in the order of `parts`."""

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
        requested = set(keys)
        items = [item for item in self.missing(run, t) if item.key in requested]
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
    """An array phase with one kind of rows."""

    @property
    def parts(self) -> Sequence[Rows]:
        return [self]

    @abstractmethod
    def execute(self, run: Run, t: int, items: Sequence[WorkItem], sink: Sink) -> None:
        """Make the rows of `items`, in any order, and write each as soon as it is ready."""

    def make(self, run: Run, t: int, items: Sequence[WorkItem], sinks: Sequence[Sink]) -> None:
        [sink] = sinks
        self.execute(run, t, items, sink)


class Step(Phase):
    """A phase that is a single task on one CPU. Its result is whole files."""

    device = "cpu"
    is_array = False
    derives: ClassVar[bool] = True
    """Whether its files follow from rows and earlier files alone, so that they can be checked by doing it again."""
    time_part = "steps"

    @abstractmethod
    def done(self, run: Run, t: int) -> bool:
        """Whether its last file exists."""

    @abstractmethod
    def execute(self, run: Run, t: int) -> None:
        """Write its files; last, the one that `done` checks."""

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

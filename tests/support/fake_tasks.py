"""Tasks for tests of the evaluation; each test sets the questions, the grading and the stop strings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sparta.chat.template import Message
from sparta.cluster.driver import Driver
from sparta.cluster.inline import Inline
from sparta.phases.base import Phase
from sparta.recipes.data import Data
from sparta.store.run import Run
from sparta.tasks.base import Item, Metric, Split
from sparta.tasks.scaffold import BARE, Scaffold
from support.scripted_run import Silent


def nothing(item: Item, text: str) -> dict[str, float]:
    """A grader that gives no grade."""
    return {}


@dataclass
class Quiz:
    """A task in memory."""

    name: str = "quiz"
    metrics: tuple[Metric, ...] = (Metric("accuracy"),)
    chat_template: bool = True
    max_new_tokens: int = 64
    scaffold: Scaffold = BARE
    stop: tuple[str, ...] = ()
    likelihood: bool = False
    grading: str = ""
    notes: tuple[str, ...] = ()
    grader: Callable[[Item, str], dict[str, float]] = nothing
    likelihood_scorer: Callable[[Item, Mapping[str, float]], dict[str, float]] = lambda item, logs: {}
    splits: dict[str, Sequence[Item]] = field(
        default_factory=lambda: {split: questions(split, 5) for split in ("validation", "test")}
    )

    def items(self, split: Split, data: Data) -> Sequence[Item]:
        return self.splits[split]

    def posed(self, item: Item) -> Item:
        return item

    def in_combat(self, item: Item) -> Item:
        return item

    def plain(self, item: Item) -> tuple[Message, ...]:
        return self.scaffold.added(item.messages)

    def grade(self, item: Item, text: str) -> dict[str, float]:
        return self.grader(item, text)

    def score_likelihoods(self, item: Item, logs: Mapping[str, float]) -> dict[str, float]:
        return self.likelihood_scorer(item, logs)


def questions(split: str, count: int, **fields: object) -> list[Item]:
    return [
        Item(f"{split}/{number}", (Message("user", f"{split} question {number}"),), **fields)  # type: ignore[arg-type]
        for number in range(count)
    ]


def complete(run: Run, phase: Phase) -> Driver:
    """Make all rows of `phase` in this process: other processes do not know a task that a test has registered."""
    driver = Driver(run, Inline(run), Silent(), lambda: None)
    driver.complete(phase, 0)
    return driver

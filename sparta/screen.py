"""The output of a run: the plan, one progress bar per phase, a table after each iteration. In a log, plain lines replace the bars."""

import time
from collections.abc import Iterable
from typing import Any, Protocol

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.text import Text

from sparta.errors import printable

LOG_EVERY_SECONDS = 15.0
LOG_WIDTH = 110


class Titled(Protocol):
    """The part of a phase that a screen needs: its title and the device of its tasks."""

    @property
    def title(self) -> str: ...
    @property
    def device(self) -> str: ...


class Screen:
    """A driver's `View` on standard output."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or plain_console()
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._name = ""
        self._done = 0.0
        self._total = 0
        self._began = self._shown = 0.0

    def phase_begins(self, t: int, phase: Titled, total: int, done: int) -> None:
        if phase.device == "cpu":
            return
        self._name = f"iteration {t} {phase.title:9}" if t else f"{phase.title:16}"
        self._done, self._total = float(done), total
        self._began = self._shown = time.monotonic()
        if self.console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self.console,
            )
            self._bar.start()
            self._task = self._bar.add_task(self._name, total=total, completed=done)

    def advanced(self, items: float) -> None:
        self._done += items
        if self._bar:
            self._bar.update(self._task, completed=round(self._done, 1))
        elif self._name and time.monotonic() - self._shown > LOG_EVERY_SECONDS:
            self._shown = time.monotonic()
            self.say(f"{self._name} {self._done:.0f}/{self._total}")

    def phase_ends(self) -> None:
        if self._bar:
            self._bar.stop()
            self._bar = None
        elif self._name:
            self.say(
                f"{self._name} {self._done:.0f}/{self._total} in {duration(time.monotonic() - self._began)}"
            )
        self._name = ""

    def say(self, text: str) -> None:
        self.console.print(text, markup=False)


class PlainConsole(Console):
    """Prints texts literally: no markup, no emoji codes, and characters that are not printable are escaped."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, soft_wrap=True, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))


def plain_console() -> Console:
    """A console on standard output. In a log it has a fixed width that fits the tables."""
    console = PlainConsole()
    return console if console.is_terminal else PlainConsole(width=LOG_WIDTH)


def duration(seconds: float) -> str:
    """`seconds` as text: 40 s, 3 min, 5 h 10 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds // 3600:.0f} h {seconds % 3600 / 60:.0f} min"

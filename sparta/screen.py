"""What a person sees: the plan, one progress bar a phase, a table after each iteration. On a terminal bars, in a log plain lines."""

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
    """A phase, as far as a screen cares: its title, and what a task of it needs."""

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
    """Shows texts as they are, whoever wrote them: brackets and colons in them mean nothing, and what is not printable is spelled out."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, soft_wrap=True, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))


def plain_console() -> Console:
    """Standard output; in a log as wide as a table needs, not as some terminal is."""
    console = PlainConsole()
    return console if console.is_terminal else PlainConsole(width=LOG_WIDTH)


def duration(seconds: float) -> str:
    """In words that people use: 40 s, 3 min, 5 h 10 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds // 3600:.0f} h {seconds % 3600 / 60:.0f} min"

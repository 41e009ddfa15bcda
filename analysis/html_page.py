"""One HTML file of a report: template, style and script from analysis/page, all inside, nothing loaded from a network.

Texts are escaped by Jinja2; texts of models also have their control and bidirectional characters spelled out (`cases.shown`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.cases import KINDS, RAW_LIMIT, Case, shown
from sparta.errors import printable

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

PAGE = Path(__file__).parent / "page"
TALL = 30
"""A table with more rows scrolls in a window of its own."""


@dataclass(frozen=True)
class Block:
    """A table, a figure or a reason why there is none. markup: HTML that is safe. notes: sentences below it."""

    title: str
    markup: "Markup"
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """A part of the page. id: of its heading, for links."""

    id: str
    title: str
    intro: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Answer:
    """One of the four answers on the first screen."""

    question: str
    lead: str
    more: Sequence[str] = ()
    commands: Sequence[str] = ()


@dataclass(frozen=True)
class Filter:
    """A choice by which rows and cases are shown. name: of the rows' data attribute."""

    name: str
    label: str
    options: Sequence[str]


@dataclass(frozen=True)
class Page:
    """Everything on the page. going: whether the run is not finished. several: whether there are cases of several runs. reload_seconds: 0 for a page that stays as it is."""

    title: str
    state: str
    going: bool
    answers: Sequence[Answer]
    sections: Sequence[Section]
    cases: Sequence[Case]
    filters: Sequence[Filter]
    several: bool
    made: str
    source: str
    version: str
    reload_seconds: int = 0
    kinds: Sequence[str] = KINDS

    def html(self) -> str:
        """The page."""
        made: str = (
            _environment()
            .get_template("report.html.j2")
            .render(page=self, css=_file("report.css"), js=_file("report.js"))
        )
        return made


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(PAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = shown
    environment.filters["raw"] = lambda text: shown(text, RAW_LIMIT)
    return environment


@cache
def _file(name: str) -> "Markup":
    from markupsafe import Markup

    return Markup((PAGE / name).read_text(encoding="utf-8"))


def table_markup(
    caption: str, headings: Sequence[str], rows: Sequence[tuple[Mapping[str, str], Sequence[Any]]]
) -> "Markup":
    """A table that the filters know. rows: each with its data attributes (run, iteration, model, task) and its cells; the first is its heading."""
    from markupsafe import Markup

    head = Markup("").join(Markup('<th scope="col">{}</th>').format(heading) for heading in headings)
    body = []
    for data, (first, *cells) in rows:
        attributes = Markup("").join(
            Markup(' data-{}="{}"').format(name, printable(value)) for name, value in data.items()
        )
        body.append(
            Markup('<tr data-row{}><th scope="row">{}</th>{}</tr>').format(
                attributes,
                printable(str(first)),
                Markup("").join(Markup("<td>{}</td>").format(printable(str(each))) for each in cells),
            )
        )
    table = Markup(
        "<table><caption>{}</caption>\n<thead><tr>{}</tr></thead>\n<tbody>\n{}\n</tbody></table>"
    ).format(caption, head, Markup("\n").join(body))
    return scrolling(table, caption, len(rows))


def scrolling(table: "Markup", label: str, rows: int) -> "Markup":
    """`table` in a region that scrolls by itself, also by keyboard."""
    from markupsafe import Markup

    tall = " tall" if rows > TALL else ""
    return Markup('<div class="wide{}" role="region" tabindex="0" aria-label="{}">{}</div>').format(
        tall, label, table
    )


def text_block(title: str, text: str, folded: bool = False) -> Block:
    """A text as it is, such as a recipe. folded: shown on request."""
    from markupsafe import Markup

    body = Markup('<pre class="text" dir="auto">{}</pre>').format(printable(text))
    if folded:
        body = Markup("<details><summary>{}</summary>{}</details>").format(printable(title), body)
    return Block("" if folded else title, body)

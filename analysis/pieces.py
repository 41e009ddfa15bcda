"""What tables and figures are made of: a table that renders as Markdown, LaTeX or HTML, and the reason why a piece cannot be shown."""

import html
import re
from dataclasses import dataclass

import pandas as pd

from sparta.errors import SpartaError

Cell = tuple[int, int]
"""Row and column of a table, from 0."""
FORMATS = ("markdown", "latex", "html", "csv")


class Absent(SpartaError):
    """Why a piece cannot be shown, in one sentence that stands in its place."""


@dataclass(frozen=True)
class Table:
    """A table. frame: its values, with labels as the index. shown: the same cells as texts. best, second: marked cells; starred: differences that are
    significant. notes: sentences below it.
    """

    title: str
    frame: pd.DataFrame
    shown: pd.DataFrame
    best: frozenset[Cell] = frozenset()
    second: frozenset[Cell] = frozenset()
    starred: frozenset[Cell] = frozenset()
    notes: tuple[str, ...] = ()

    def rendered(self, kind: str) -> str:
        """The table as one of FORMATS."""
        return {"markdown": markdown, "latex": latex, "html": as_html, "csv": csv}[kind](self)

    def _repr_html_(self) -> str:
        return as_html(self)


def plain_table(title: str, frame: pd.DataFrame, notes: tuple[str, ...] = (), digits: int = 3) -> Table:
    """`frame` as a table without marks: numbers with `digits`, counts as they are, what is missing as a dash."""

    def text(value: object) -> str:
        if pd.isna(value):
            return "-"
        if isinstance(value, float):
            return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}f}"
        return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)

    return Table(title, frame, frame.astype(object).map(text), notes=notes)


def markdown(table: Table) -> str:
    """A table of GitHub's Markdown: the best in bold, the second underlined, a star where a difference is significant."""
    head = [_in_markdown(name) for name in (*_names(table), *map(_label, table.shown.columns))]
    lines = [head, [*["---"] * len(_names(table)), *["---:"] * len(table.shown.columns)]]
    for row, (index, values) in enumerate(zip(table.shown.index, table.shown.values.tolist(), strict=True)):
        cells = [
            _marked(table, row, column, _in_markdown(text), ("**", "**"), ("<u>", "</u>"), "\\*")
            for column, text in enumerate(values)
        ]
        lines.append([*map(_in_markdown, _parts(index)), *cells])
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    notes = "".join(f"\n{_in_markdown(note)}\n" for note in table.notes)
    return f"**{_in_markdown(table.title)}**\n\n{body}\n{notes}"


def latex(table: Table) -> str:
    """A table environment of LaTeX, for booktabs."""
    head = [_in_latex(name) for name in (*_names(table), *map(_label, table.shown.columns))]
    lines = []
    for row, (index, values) in enumerate(zip(table.shown.index, table.shown.values.tolist(), strict=True)):
        cells = [
            _marked(table, row, column, _in_latex(text), ("\\textbf{", "}"), ("\\underline{", "}"), "$^*$")
            for column, text in enumerate(values)
        ]
        lines.append(" & ".join([*map(_in_latex, _parts(index)), *cells]) + " \\\\")
    shape = "l" * len(_names(table)) + "r" * len(table.shown.columns)
    caption = " ".join(_in_latex(sentence) for sentence in (_sentence(table.title), *table.notes))
    return "\n".join(
        [
            "\\begin{table}",
            "\\centering",
            f"\\caption{{{caption}}}",
            f"\\begin{{tabular}}{{{shape}}}",
            "\\toprule",
            " & ".join(head) + " \\\\",
            "\\midrule",
            *lines,
            "\\bottomrule",
            "\\end{tabular}",
            "\\end{table}",
            "",
        ]
    )


def as_html(table: Table) -> str:
    """A table element with caption and scoped headings. Every text is escaped."""
    head = "".join(
        f'<th scope="col">{html.escape(name)}</th>'
        for name in (*_names(table), *map(_label, table.shown.columns))
    )
    rows = []
    for row, (index, values) in enumerate(zip(table.shown.index, table.shown.values.tolist(), strict=True)):
        labels = "".join(f'<th scope="row">{html.escape(part)}</th>' for part in _parts(index))
        cells = "".join(
            "<td>"
            + _marked(
                table,
                row,
                column,
                html.escape(text),
                ("<strong>", "</strong>"),
                ("<u>", "</u>"),
                "<sup>*</sup>",
            )
            + "</td>"
            for column, text in enumerate(values)
        )
        rows.append(f"<tr>{labels}{cells}</tr>")
    notes = "".join(f'<p class="note">{html.escape(note)}</p>' for note in table.notes)
    return (
        f"<table>\n<caption>{html.escape(table.title)}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n"
        + "\n".join(rows)
        + f"\n</tbody>\n</table>\n{notes}"
    )


def csv(table: Table) -> str:
    """The values, unrounded."""
    frame = table.frame.copy()
    frame.columns = [_label(column) for column in frame.columns]
    made: str = frame.to_csv()
    return made


def _marked(
    table: Table, row: int, column: int, text: str, bold: tuple[str, str], under: tuple[str, str], star: str
) -> str:
    cell = (row, column)
    before, after = bold if cell in table.best else under if cell in table.second else ("", "")
    return f"{before}{text}{after}{star if cell in table.starred else ''}"


def _names(table: Table) -> list[str]:
    """The headings of the columns of labels."""
    return [str(name) if name is not None else "" for name in table.shown.index.names]


def _parts(index: object) -> list[str]:
    return [str(part) for part in index] if isinstance(index, tuple) else [str(index)]


def _label(column: object) -> str:
    return ", ".join(_parts(column))


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _in_markdown(text: str) -> str:
    return re.sub(r"([|\\`*_<>\[\]])", r"\\\1", text).replace("\n", " ")


_LATEX = {
    "\\": "\\textbackslash{}", "&": "\\&", "%": "\\%", "$": "\\$", "#": "\\#", "_": "\\_", "{": "\\{", "}": "\\}",
    "~": "\\textasciitilde{}", "^": "\\textasciicircum{}",
}  # fmt: skip


def _in_latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)

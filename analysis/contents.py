"""What a report holds: its sections, and for each the tables and figures of the catalogue that stand in it.

A piece that cannot be made says why in its place; the others are made nevertheless.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis import drawing
from analysis.browse import keep_blocks, models_block, scores_block
from analysis.catalogue import FIGURES, TABLES
from analysis.frames import Frames
from analysis.html_page import Block, Section, scrolling, text_block
from sparta.errors import SpartaError
from sparta.store import files


@dataclass(frozen=True)
class Chapter:
    """A section. pieces: "figure NAME" or "table NAME" of the catalogue, in order. of_study: those that a study's report has."""

    id: str
    title: str
    intro: str
    pieces: Sequence[str]
    of_study: Sequence[str] = ()


CHAPTERS = (
    Chapter(
        "scores",
        "Scores",
        "Checkpoints are chosen on validation; the chosen ones are scored on test. The best is bold, the second underlined, and a star marks a significant difference.",
        (
            "table table1",
            "figure validation",
            "table improvement",
            "table table7",
            "figure figure2",
            "table table5",
            "table table6",
            "table table4",
        ),
        (
            "table table1",
            "table table3",
            "figure figure3",
            "figure figure4",
            "table improvement",
            "table table7",
            "figure figure2",
            "table table5",
            "table table4",
        ),
    ),
    Chapter(
        "reputation",
        "Reputation",
        "What the models think of each other, and whether it agrees with their scores.",
        (
            "figure reputations",
            "figure who_beat_whom",
            "figure figure12",
            "table correlations",
            "figure figure13",
        ),
        ("table correlations",),
    ),
    Chapter(
        "judges",
        "Judges",
        "How each judge votes, and how many judges there are in effect.",
        ("figure judges", "table judges"),
    ),
    Chapter(
        "labels",
        "Labels",
        "What became of the combats, how clear the labels are, and what they owe to the reputations.",
        ("figure results", "table results", "figure margins", "table labels"),
        ("table results", "table labels"),
    ),
    Chapter(
        "diversity",
        "Diversity",
        "How different the answers are: to one prompt, and within a pair.",
        ("table table2", "figure figure6", "table table8"),
        ("table table2", "figure figure6", "table table8"),
    ),
    Chapter("training", "Training", "What the models learned from the pairs.", ("figure losses",)),
    Chapter("cost", "Cost", "Where the time went.", ("figure time", "table time"), ("table time",)),
)


def sections(found: Frames, folder: Path) -> Iterator[Section]:
    """The sections of the page. Tables and figures are also written below `folder`: tables/NAME.csv, .md, .tex and figures/NAME.svg."""
    for chapter in CHAPTERS:
        pieces = chapter.pieces if found.study is None else chapter.of_study
        if pieces:
            yield Section(chapter.id, chapter.title, chapter.intro, _blocks(pieces, found, folder))
    yield Section(
        "browse",
        "Browse",
        "Every number of a model, and every score.",
        keep_blocks([models_block(found), scores_block(found)]),
    )
    recipes = [
        text_block(f"Recipe of {source.label}", source.run.recipe.to_yaml(), folded=True)
        for source in found.sources
    ]
    yield Section("recipe", "Recipe", "Everything that decides about a result.", recipes)


def _blocks(pieces: Sequence[str], found: Frames, folder: Path) -> list[Block]:
    """The pieces as parts of the page, and as files; last, why some are not there."""
    from markupsafe import Markup

    blocks, absent = list[Block](), list[Markup]()
    for kind, name in map(str.split, pieces):
        try:
            blocks.append(_table(name, found, folder) if kind == "table" else _figure(name, found, folder))
        except SpartaError as why:
            title = TABLES[name].title if kind == "table" else FIGURES[name].title
            absent.append(Markup("<li>{}: {}</li>").format(title, str(why)))
    if absent:
        reasons = Markup("<details><summary>Not shown: {}</summary><ul>{}</ul></details>")
        blocks.append(Block("", reasons.format(len(absent), Markup("").join(absent))))
    return blocks


def _table(name: str, found: Frames, folder: Path) -> Block:
    from markupsafe import Markup

    made = TABLES[name].make(found)
    for ending, kind in (("csv", "csv"), ("md", "markdown"), ("tex", "latex")):
        files.write_bytes(folder / "tables" / f"{name}.{ending}", made.rendered(kind).encode())
    element, end, _ = made.rendered("html").partition("</table>")
    return Block(
        TABLES[name].title, scrolling(Markup(element + end), made.title, len(made.frame)), made.notes
    )


def _figure(name: str, found: Frames, folder: Path) -> Block:
    from markupsafe import Markup

    piece = FIGURES[name]
    made = piece.make(found)
    # Drawing takes most of the time of a report, so the file and the page share one picture; alone, its ink is black.
    svg = drawing.svg(made, name)
    files.write_bytes(folder / "figures" / f"{name}.svg", svg.encode())
    width = round(made.get_figwidth() * 96)
    says = (piece.make.__doc__ or piece.title).strip().split("\n")[0]
    figure = Markup(
        '<figure style="max-width: {}px"><div class="wide" role="region" tabindex="0" aria-label="{}"><div class="drawing" role="img" aria-label="{}">{}</div></div>'
        "<figcaption>{}</figcaption></figure>"
    )
    return Block(piece.title, figure.format(width, piece.title, f"{piece.title}. {says}", Markup(svg), says))

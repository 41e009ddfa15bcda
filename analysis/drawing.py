"""How figures look: colours that colour-blind readers tell apart, and SVG that takes the text colour of the page around it, so that it also suits a dark one.

A figure is a matplotlib Figure, made without pyplot, so nothing is left open. A notebook shows it after pyplot.install_repl_displayhook(); `svg` makes it a part of a page, `save` a file.
"""

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

P = ParamSpec("P")

COLOURS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377")
"""Paul Tol's bright scheme without its grey; all of them can be seen on white and on black."""
MARKERS = "osD^vPX*<>"
INK = "#555558"
"""Text and lines. In a page it becomes the page's own colour; alone it can be read on white and on black."""
WIDTH = 3.6
"""Inches of one panel."""
TRANSPARENT = "none"
DIVERGING = "PuOr"
"""The colour map of shares around a half; safe for colour-blind readers."""


def style_of(number: int) -> dict[str, Any]:
    """Colour, dashes and marker of the series `number`: no two of the first sixty have the same."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": ("-", "--", ":")[number // len(COLOURS) % 3],
        "marker": MARKERS[number % len(MARKERS)],
    }


def panels(
    count: int, columns: int = 4, height: float = 2.8, width: float | None = None
) -> "tuple[Figure, list[Any]]":
    """A figure with `count` panels in rows of `columns`, and its axes. height: of a row, width: of the figure, in inches."""
    from matplotlib.figure import Figure

    across = min(columns, count)
    down = -(-count // across)
    figure = Figure(
        figsize=(width or WIDTH * across, height * down), layout="constrained", facecolor=TRANSPARENT
    )
    grid = figure.subplots(down, across, squeeze=False)
    axes = [axis for row in grid for axis in row]
    for axis in axes:
        _quiet(axis)
    for axis in axes[count:]:
        axis.set_visible(False)
    return figure, axes[:count]


def _quiet(axis: Any) -> None:
    axis.set_facecolor(TRANSPARENT)
    axis.grid(alpha=0.25, color=INK, linewidth=0.6)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def styled(draw: Callable[P, "Figure"]) -> Callable[P, "Figure"]:
    """Gives everything that `draw` draws the sizes and the ink of all figures."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> "Figure":
        with _style():
            return draw(*args, **kwargs)

    return drawn


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib

    ink: dict[Any, Any] = dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor", "xtick.color", "ytick.color"),
        INK,
    )
    sizes: dict[Any, Any] = {
        "font.size": 9.0,
        "axes.titlesize": 9.5,
        "legend.fontsize": 8.0,
        "axes.linewidth": 0.8,
    }
    with matplotlib.rc_context({**ink, **sizes, "lines.markersize": 4, "lines.linewidth": 1.4}):
        yield


def legend(figure: "Figure", axis: Any) -> None:
    """One legend for all panels, below them, of what `axis` shows."""
    handles, labels = axis.get_legend_handles_labels()
    if handles:
        across = max(1, int(figure.get_figwidth() / 1.15))
        figure.legend(
            handles, labels, loc="outside lower center", ncols=min(len(handles), across), frameon=False
        )


def svg(figure: "Figure", name: str) -> str:
    """`figure` as an element of a page: ink takes the page's colour, ids begin with `name`, so that figures do not clash. It is deterministic."""
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(
            out,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(rf"{INK}", "currentColor", text, flags=re.IGNORECASE)
    # Ids of matplotlib are the same in every figure.
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    return re.sub(
        r'(<svg[^>]*?) width="[^"]*"',
        r"\1",
        re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1),
        count=1,
    )


def save(figure: "Figure", path: Path) -> None:
    """Write `figure` to a file; its ending says as what. A picture of pixels gets a white ground, everything else none."""
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": path.stem}):
        if path.suffix == ".svg":
            figure.savefig(path, transparent=True, metadata={"Date": None})
        else:
            figure.savefig(path, dpi=110, facecolor="white")

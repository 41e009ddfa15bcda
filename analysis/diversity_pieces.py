"""Tables 2 and 8 and Figure 6 as pieces of the catalogue. What they are made of is in diversity.py."""

from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import pandas as pd

from analysis import diversity
from analysis.drawing import styled
from analysis.frames import Frames
from analysis.pieces import Absent, Table, plain_table
from sparta.names import suggested
from sparta.store.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_kept: WeakKeyDictionary[Frames, pd.DataFrame] = WeakKeyDictionary()
"""The sets of the frames that were asked for last: a table and a figure are made of them."""


def table2(found: Frames) -> Table:
    """Table 2: how different sampled answers to one prompt are, in the first and the last sampled iteration. Raises Absent where nothing was sampled."""
    frame = diversity.table2(_sets(found)).dropna(axis="columns", how="all")
    labels = _labels(frame, "run", "task", "sampling", "of", "iteration")
    notes = (
        "edit, bleu and embed are distances (0: equal), llm is a judge's score from 1 to 10. embed is measured by analysis/diversity.py --embeddings.",
        *(
            f"{source.label}: {gap}." if len(found.sources) > 1 else f"{gap}."
            for source in found.sources
            for gap in diversity.gaps(source.run)
        ),
    )
    return plain_table(
        "Diversity of sampled answers", frame.set_index(labels).drop(columns=_about(frame, labels)), notes
    )


def table8(found: Frames) -> Table:
    """Table 8: how much the chosen and the rejected response of a pair differ. Raises Absent where there are no pairs of two responses."""
    pairs = _of_all(found, lambda run: diversity.pairs(run, workers=1))
    if pairs.empty:
        raise Absent("there are no preference pairs of two responses")
    frame = diversity.table8(pairs).dropna(axis="columns", how="all")
    labels = _labels(frame, "run", "method")
    notes = (
        "Mean differences of the entropies of chosen and rejected, in bits: of characters, words, their n-grams, and parts of speech.",
        "Pairs with a gold answer are left out.",
    )
    return plain_table(
        "Differences within preference pairs",
        frame.set_index(labels).drop(columns=_about(frame, labels)),
        notes,
    )


@styled
def figure6(found: Frames) -> "Figure":
    """Diversity of sampled answers over iterations, with 95 % intervals over items.

    Raises Absent where nothing was sampled.
    """
    return diversity.figure6(_sets(found))


def _sets(found: Frames) -> pd.DataFrame:
    if found not in _kept:
        _kept[found] = _of_all(found, lambda run: diversity.sets(run, workers=1))
    if _kept[found].empty:
        [root, *_] = [source.run.state.root for source in found.sources]
        raise Absent(f"no answers were sampled: {suggested('sample', root, '--all')}")
    return _kept[found]


def _of_all(found: Frames, make: Callable[[Run], pd.DataFrame]) -> pd.DataFrame:
    """The frames of all runs together, called as in `found`."""
    parts = [make(source.run).assign(run=source.label) for source in found.sources]
    return pd.concat([part for part in parts if not part.empty] or parts[:1], ignore_index=True)


def _labels(frame: pd.DataFrame, *names: str) -> list[str]:
    """Those of `names` that tell rows apart; the last one if none does."""
    return [name for name in names if frame[name].nunique() > 1] or [names[-1]]


def _about(frame: pd.DataFrame, labels: list[str]) -> list[str]:
    """The columns that say the same in every row, and are not measured."""
    return [
        name
        for name in ("run", "method", "task", "sampling", "of", "iteration")
        if name in frame and name not in labels
    ]

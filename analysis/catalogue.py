"""All tables and figures by name, with their titles: what a page or a command goes through. Each is made from frames, or raises Absent with the reason."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from analysis import diversity_pieces, judging, outcomes, paper_figures, paper_tables, run_figures
from analysis.correlation import correlations, mean_of_r
from analysis.frames import Frames
from analysis.pieces import Table, plain_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class TablePiece:
    """A table. beside_paper: whether it can show the paper's numbers beside."""

    title: str
    make: Callable[..., Table]
    beside_paper: bool = False


@dataclass(frozen=True)
class FigurePiece:
    title: str
    make: "Callable[[Frames], Figure]"


def _frame_as_table(
    title: str, of: Callable[[Frames], pd.DataFrame], labels: Sequence[str], *notes: str
) -> TablePiece:
    """A frame as a table. labels: the columns that name its rows, behind `run` where there are several."""

    def make(found: Frames) -> Table:
        frame = of(found)
        if len(found.sources) == 1:
            return plain_table(title, frame.drop(columns="run").set_index(list(labels)), notes)
        return plain_table(title, frame.set_index(["run", *labels]), notes)

    return TablePiece(title, make)


def _correlations(found: Frames) -> Table:
    frame = correlations(found)
    mean = mean_of_r(frame)
    note = (
        "r is not defined on any task."
        if mean is None
        else f"The mean of Pearson's r over tasks is {mean:.2f}; in the paper it is 0.21."
    )
    labels = ["run", "task"] if len(found.sources) > 1 else ["task"]
    frame = frame.drop(columns=[name for name in ("run",) if name not in labels]).set_index(labels)
    few = "Intervals: 95 %, of a bootstrap over models. With so few models they are wide."
    return plain_table("Performance against reputation: one point a model", frame, (note, few), digits=2)


TABLES: Mapping[str, TablePiece] = {
    "table1": TablePiece("Table 1: test scores", paper_tables.table1, beside_paper=True),
    "table2": TablePiece("Table 2: diversity of sampled answers", diversity_pieces.table2),
    "table3": TablePiece("Table 3: ablations", paper_tables.table3, beside_paper=True),
    "table4": TablePiece("Table 4: splits as used", paper_tables.table4, beside_paper=True),
    "table5": TablePiece("Table 5: further metrics", paper_tables.table5, beside_paper=True),
    "table6": TablePiece("Table 6: changes of the best model", paper_tables.table6),
    "table7": TablePiece("Table 7: tasks that were not trained on", paper_tables.table7, beside_paper=True),
    "table8": TablePiece("Table 8: differences within preference pairs", diversity_pieces.table8),
    "correlations": TablePiece("Performance against reputation", _correlations),
    "improvement": _frame_as_table(
        "Tokens a point of improvement",
        outcomes.improvement,
        ["task"],
        "A point is a hundredth of the metric's best value; tokens are all that were generated, read and trained on.",
    ),
    "results": _frame_as_table("Results of the combats, as shares", outcomes.shares, ["iteration"]),
    "labels": _frame_as_table(
        "Margins of the labels",
        judging.labels,
        ["iteration"],
        "by_weights: the unweighted scores are a tie; reversed: they would decide the other way round; effective_judges: (sum w)^2 / sum w^2; "
        "split: share of judges with a preference that preferred the loser.",
    ),
    "judges": _frame_as_table(
        "Judges",
        judging.judges,
        ["iteration", "judge"],
        "agreement: with the label, to which the judge's own vote contributes; agreement_with_others: with the weighted vote of the other judges; "
        "leniency: points above the other judges on the same responses.",
    ),
    "time": _frame_as_table(
        "Time by part in seconds, and the idle share", outcomes.time_by_part, ["unit", "iteration"]
    ),
}
FIGURES: Mapping[str, FigurePiece] = {
    "figure2": FigurePiece("Figure 2: tasks that were not trained on", paper_figures.figure2),
    "figure3": FigurePiece("Figure 3: size of the pool", paper_figures.pool_size),
    "figure4": FigurePiece("Figure 4: diversity of the pool", paper_figures.pool_diversity),
    "figure5": FigurePiece("Figure 5: performance against reputation", paper_figures.figure5),
    "figure6": FigurePiece("Figure 6: diversity over iterations", diversity_pieces.figure6),
    "figure12": FigurePiece("Figure 12: performance against reputation, all tasks", paper_figures.figure12),
    "figure13": FigurePiece(
        "Figure 13: performance against reputation at every iteration", paper_figures.figure13
    ),
    "validation": FigurePiece("Validation scores", run_figures.validation),
    "reputations": FigurePiece("Reputations and judging weights", run_figures.reputations),
    "who_beat_whom": FigurePiece("Who met whom, and who won", run_figures.who_beat_whom),
    "judges": FigurePiece("Judges", run_figures.judges),
    "margins": FigurePiece("Margins of the labels", run_figures.margins),
    "results": FigurePiece("Results of the combats", run_figures.shares),
    "losses": FigurePiece("Losses", run_figures.losses),
    "time": FigurePiece("Where the time went", run_figures.time_by_part),
}

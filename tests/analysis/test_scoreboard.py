"""Tables that compare test scores: values, marks and tests by hand or by the evaluation's own functions; renderings that escape."""

import csv
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
import yaml
from support.scripted_run import advance, begin

from analysis import frames, paper_tables
from analysis.catalogue import FIGURES, TABLES
from analysis.pieces import FORMATS, Absent, Table, plain_table
from analysis.scoreboard import ChosenScore, Score, Scoreboard, scoreboard
from sparta.evaluation.across_seeds import difference_over_seeds, holm
from sparta.evaluation.selection import ALL, INITIAL
from sparta.evaluation.statistics import paired
from sparta.evaluation.summary import read_summary

ITEMS = [f"item{number}" for number in range(40)]


def chosen(run: str, seed: int, right: int, task: str = "gsm8k") -> ChosenScore:
    """A run that has the first `right` of forty items right."""
    values = {item: float(place < right) for place, item in enumerate(ITEMS)}
    return ChosenScore(run, seed, ALL, task, "accuracy", "iter_01-m", right / 40, 1.0, {}, values)


def score(*counts: int, task: str = "gsm8k") -> Score:
    return Score({seed: chosen("run", seed, right, task) for seed, right in enumerate(counts)})


def test_the_best_is_tested_against_the_second_and_corrected_for_all_columns() -> None:
    cells = {
        ("one", ("gsm8k",)): score(30),
        ("two", ("gsm8k",)): score(18),
        ("three", ("gsm8k",)): score(10),
        ("one", ("medqa",)): score(20),
        ("two", ("medqa",)): score(22),
        ("one", ("com2",)): score(7),
    }
    board = Scoreboard(cells)
    assert board.ranked(("gsm8k",)) == ["one", "two", "three"] and board.ranked(("medqa",)) == ["two", "one"]
    p_values = {
        "gsm8k": paired(score(30).by_seed[0].values, score(18).by_seed[0].values).p,
        "medqa": paired(score(22).by_seed[0].values, score(20).by_seed[0].values).p,
    }
    found = board.differences
    assert set(found) == {("gsm8k",), ("medqa",)}
    for task, adjusted in holm(p_values).items():
        assert (found[(task,)].p, found[(task,)].p_holm) == (p_values[task], adjusted)
    assert (
        found[("gsm8k",)].difference == pytest.approx(0.3)
        and found[("gsm8k",)].p_holm < 0.05 < found[("medqa",)].p
    )
    table = paper_tables._compared(board, "scores", None)
    assert table.best == {(0, 0), (1, 1)} and table.second == {(1, 0), (0, 1)} and table.starred == {(0, 0)}
    assert table.frame.loc["one", "gsm8k"] == 0.75 and pd.isna(table.frame.loc["two", "com2"])
    assert table.shown.loc["two"].tolist() == ["0.450", "0.550", "-"]


def test_over_seeds_the_mean_the_spread_and_the_test_are_those_over_seeds() -> None:
    one, two = score(30, 32, 28), score(20, 24, 19)
    board = Scoreboard({("one", ("gsm8k",)): one, ("two", ("gsm8k",)): two})
    assert one.mean == pytest.approx(0.75) and one.spread == pytest.approx(0.05)
    several = difference_over_seeds(
        [one.by_seed[seed].values for seed in range(3)], [two.by_seed[seed].values for seed in range(3)]
    )
    [difference] = board.differences.values()
    assert (difference.p, difference.seeds, difference.difference) == (several.p, 3, several.difference)
    assert paper_tables._compared(board, "scores", None).shown.loc["one", "gsm8k"] == "0.750 ± 0.050"


def test_ties_share_the_mark_and_a_lone_row_has_none() -> None:
    tie = {("one", ("gsm8k",)): score(20), ("two", ("gsm8k",)): score(20), ("three", ("gsm8k",)): score(10)}
    table = paper_tables._compared(Scoreboard(tie), "scores", None)
    assert table.best == {(0, 0), (1, 0)} and table.second == {(2, 0)} and not table.starred
    alone = paper_tables._compared(Scoreboard({("one", ("gsm8k",)): score(20)}), "scores", None)
    assert not alone.best and not alone.second


def test_table_1_has_the_scores_of_the_summary(state: Path, found: frames.Frames) -> None:
    summary = read_summary(found.run().state).tasks
    frame = paper_tables.table1(found).frame
    assert list(frame.columns) == ["medqa", "gsm8k", "alpaca"]
    for task in frame.columns:
        choices = {choice.what: choice for choice in summary[task].choices}
        first = summary[task].metrics[0].name
        assert frame.loc[INITIAL, task] == choices[INITIAL].test[first].mean
        assert frame.loc["sparta", task] == choices[ALL].test[first].mean
    board = scoreboard(found)
    cell = board.cells["sparta", ("gsm8k",)].by_seed[0]
    assert sum(cell.values.values()) / len(cell.values) == pytest.approx(cell.mean)


def test_table_5_has_the_other_metrics_and_table_1_the_papers_numbers_beside(found: frames.Frames) -> None:
    assert list(paper_tables.table5(found).frame.columns) == [
        "medqa, comprehensiveness",
        "medqa, informativeness",
        "medqa, coherence",
    ]
    beside = paper_tables.table1(found, paper=True).frame
    assert beside.loc["sparta (paper)"].tolist() == [0.662, 0.813, 7.12]
    assert paper_tables.table5(found, paper=True).frame.loc["sppo (paper)"].tolist() == [6.70, 7.30, 7.97]


def test_table_4_counts_the_items_and_table_6_names_the_best(found: frames.Frames) -> None:
    frame = paper_tables.table4(found, paper=True).frame
    assert frame.loc["gsm8k", ["validation", "test", "validation (paper)"]].tolist() == [20, 20, 660]
    assert frame.loc["own", "train"] == 48
    choices = {choice.what: choice for choice in read_summary(found.run().state).tasks["gsm8k"].choices}
    best = paper_tables.table6(found).frame.loc["gsm8k"]
    assert best["initial best"] == choices[INITIAL].checkpoint.removeprefix("iter_00-")
    assert best["initial validation"] == choices[INITIAL].validation


def test_the_papers_numbers_are_complete() -> None:
    known = yaml.safe_load((Path(paper_tables.__file__).parent / "paper.yaml").read_text())
    for name, table in known.items():
        assert {len(row) for row in table["rows"].values()} == {len(table["columns"])}, name
    source = Path(__file__).parents[3] / "shared/paper/tables.yaml"
    if not source.is_file():
        pytest.skip(f"the paper's tables are not at {source}")
    theirs = yaml.safe_load(source.read_text())
    assert known["table1"]["rows"]["sparta"] == theirs["table1_main"]["sparta"]
    assert known["table3"]["rows"]["no_top_k"] == theirs["table3_ablation"]["wo_topk_match"]
    assert known["table4"]["rows"] == theirs["table4_splits"]
    assert known["table5"]["rows"]["spin"] == theirs["table5_medqa_facets"]["spin"]


NASTY = 'a|b *c* <script>alert("x")</script> & 50 % _d_ \\e {f} $g ~h ^i \u202e #'


class Cells(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture
def nasty() -> Table:
    frame = pd.DataFrame({NASTY: ["x", NASTY]}, index=pd.Index([NASTY, "plain"], name="label"))
    made = plain_table(NASTY, frame, (NASTY,))
    return Table(
        made.title,
        made.frame,
        made.shown,
        frozenset({(0, 0)}),
        frozenset({(1, 0)}),
        frozenset({(0, 0)}),
        made.notes,
    )


def test_html_is_escaped_and_marked(nasty: Table) -> None:
    parser = Cells()
    parser.feed(nasty.rendered("html"))
    assert "script" not in parser.tags and parser.texts.count(NASTY) == 5
    assert {"strong", "u", "sup", "caption"} <= set(parser.tags)


def test_markdown_keeps_its_cells(nasty: Table) -> None:
    lines = [line for line in nasty.rendered("markdown").splitlines() if line.startswith("|")]
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in lines] == [3, 3, 3, 3]
    assert "**x**\\*" in lines[2] and "<script>" not in nasty.rendered("markdown")


def test_latex_and_csv_are_escaped(nasty: Table) -> None:
    text = nasty.rendered("latex")
    rows = text[text.index("\\midrule") : text.index("\\bottomrule")].splitlines()[1:]
    assert [len(re.findall(r"(?<!\\)&", row)) for row in rows] == [1, 1]
    assert "\\textbf{x}$^*$" in rows[0] and "50 \\%" in text and "\\textbackslash{}e \\{f\\}" in text
    assert list(csv.reader(io.StringIO(nasty.rendered("csv"))))[2] == ["plain", NASTY]


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("kind", FORMATS)
def test_every_table_is_rendered_or_says_why_not(name: str, kind: str, found: frames.Frames) -> None:
    try:
        assert TABLES[name].make(found).rendered(kind)
    except Absent as why:
        assert name in ("table2", "table3", "table7") and re.fullmatch(r"[^.]+(\.[^.\s][^.]*)*", str(why))


@pytest.mark.parametrize("name", [*TABLES, *FIGURES])
def test_a_run_without_results_gets_a_sentence_for_every_piece(name: str, begun: frames.Frames) -> None:
    for piece in (each[name] for each in (TABLES, FIGURES) if name in each):
        if name == "table4":
            assert len(piece.make(begun).frame) == 1
        else:
            with pytest.raises(Absent):
                piece.make(begun)


def test_a_run_that_was_not_scored_has_its_other_pieces(tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 1)
    unscored = frames.load(run.state.root)
    assert len(TABLES["labels"].make(unscored).frame) == 1
    with pytest.raises(
        Absent, match=r"nothing was scored on a test split yet: run python jobs/evaluate.py .* --all"
    ):
        TABLES["table1"].make(unscored)

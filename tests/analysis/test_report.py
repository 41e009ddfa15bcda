"""The report: what its first screen says, what it is made of, and that nothing that models or people wrote can break it or hide in it."""

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support.hostile_run import HOSTILE, hostile
from support.scripted_run import advance, begin, typed
from support.study_runs import GRADED, write_study

from analysis import contents
from analysis.catalogue import TABLES
from analysis.contents import CHAPTERS, Chapter
from analysis.frames import Frames, load
from analysis.headline import costs, gains, headline, keep
from analysis.pieces import Table
from analysis.report import _going, main, watch, write_report
from analysis.scoreboard import scoreboard
from analysis.study_headline import level_gains
from sparta.errors import SpartaError
from sparta.evaluation.selection import INITIAL
from sparta.evaluation.statistics import paired
from sparta.store.run import Run
from sparta.studies.manifest import CellEntry, CellState, StudyManifest


def test_a_piece_that_cannot_be_read_leaves_the_others(
    found: Frames, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Frames) -> Table:
        raise SpartaError("labels.jsonl has no first line")

    monkeypatch.setattr(contents, "TABLES", {**TABLES, "labels": replace(TABLES["labels"], make=broken)})
    first, *rest = contents._blocks(("table labels", "table results"), found, tmp_path)
    assert first.title == TABLES["results"].title and "no first line" in str(rest[-1].markup)


VOID = {"meta", "path", "rect", "use", "line", "br", "option", "input", "li", "circle", "stop"}


class Page(HTMLParser):
    """The elements and texts of a page. left: elements that were not closed in their order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.left: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.left.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def page_of(state: Path, out: Path) -> Page:
    """The page of the report of `state`, well-formed and without anything from elsewhere."""
    path, _ = write_report(state, out)
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert not page.left and not page.open
    for _, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (name, value)
            if name in ("src", "href", "xlink:href", "action") and value is not None:
                assert value.startswith(("#", "data:image/png;base64,")), value
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert "NaN" not in page.text and "nan" not in page.text.split()
    return page


@pytest.fixture(scope="session")
def page(state: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Page, Path]:
    """The report of the small synthetic run, and its folder."""
    out = tmp_path_factory.mktemp("report")
    return page_of(state, out), out


def test_the_first_screen_answers_the_four_questions(page: tuple[Page, Path], found: Frames) -> None:
    text = page[0].text
    head = headline(found, found.sources[0])
    for question in ("Did it work?", "Which model to keep?", "How sure is that?", "What did it cost?"):
        assert question in text
    assert head.worked in text and head.keep and head.keep.checkpoint in text
    assert all(line in text for line in (*head.sure, *head.cost, *head.keep.commands))


def test_every_section_is_there_and_linked(page: tuple[Page, Path]) -> None:
    links = {attributes["href"] for tag, attributes in page[0].tags if tag == "a"}
    sections = {attributes.get("id") for tag, attributes in page[0].tags if tag == "section"}
    expected = {chapter.id for chapter in CHAPTERS} | {"browse", "recipe", "cases"}
    assert expected <= sections and {f"#{name}" for name in expected} <= links


def test_tables_and_figures_are_files_too(page: tuple[Page, Path]) -> None:
    out = page[1]
    assert {"table1.csv", "table1.md", "table1.tex", "judges.csv"} <= {
        path.name for path in (out / "tables").iterdir()
    }
    assert {"reputations.svg", "judges.svg"} <= {path.name for path in (out / "figures").iterdir()}


def test_a_gain_is_the_paired_difference_of_the_chosen_checkpoints(found: Frames) -> None:
    made = gains(found, found.sources[0])
    assert {gain.task for gain in made} == {"gsm8k", "alpaca", "medqa"}
    for gain in made:
        values = found.item_scores[
            (found.item_scores.task == gain.task) & (found.item_scores.split == gain.split)
        ]
        values = values[values.metric == gain.metric]
        before, after = (
            {row.item_id: row.score for row in values[values.checkpoint == name].itertuples()}
            for name in (gain.before_checkpoint, gain.after_checkpoint)
        )
        test = paired(after, before)
        assert gain.difference == pytest.approx(test.difference) and gain.items == test.n
        assert gain.low <= gain.difference <= gain.high
        assert gain.p >= test.p


def test_every_model_of_every_iteration_can_be_browsed(page: tuple[Page, Path], found: Frames) -> None:
    rows = [attributes for tag, attributes in page[0].tags if tag == "tr" and "data-row" in attributes]
    standings = {(row["data-iteration"], row["data-model"]) for row in rows if "data-task" not in row}
    assert standings == {(str(t), model) for t in (0, 1, 2) for model in found.models}
    assert len([row for row in rows if "data-task" in row]) == len(found.scores)


def test_the_cost_is_that_of_the_frames(found: Frames) -> None:
    said = " ".join(costs(found, found.sources[0], ()))
    total = sum(int(found.iterations[name].sum()) for name in ("generated", "read", "trained"))
    assert f"{total:,} tokens" in said
    assert f"{int(found.iterations.pair.sum()):,} preference pairs" in said


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports with few figures, for tests of what surrounds them: drawing all of them takes seconds."""
    few = ("table labels", "figure results", "figure reputations", "table correlations")
    monkeypatch.setattr(contents, "CHAPTERS", (Chapter("labels", "Labels", "", few, ("table labels",)),))


def scripted(folder: Path, iterations: int, **changes: object) -> Run:
    run = begin(folder, **changes)
    for t in range(1, iterations + 1):
        advance(run, t)
    return run


@pytest.mark.usefixtures("brief")
def test_a_run_under_way_says_how_far_it_is(tmp_path: Path) -> None:
    run = scripted(tmp_path, 1)
    advance(run, 2, upto="judge")
    page = page_of(run.state.root, tmp_path / "out")
    assert "iteration 1 of 3, not finished" in page.text
    assert "Nobody knows yet: no checkpoints were scored" in page.text
    assert "highest reputation after iteration 1" in page.text


@pytest.mark.usefixtures("brief")
def test_a_run_that_has_only_begun_has_a_report(tmp_path: Path) -> None:
    page = page_of(begin(tmp_path).state.root, tmp_path / "out")
    assert "iteration 0 of 3, not finished" in page.text and "None can be named yet" in page.text


@pytest.mark.usefixtures("brief")
def test_a_failed_launch_is_quoted(tmp_path: Path) -> None:
    from sparta.store.failure import note_failure

    run = scripted(tmp_path, 1)
    note_failure(run.state, "the <disk> is full")
    assert "the last launch failed: the <disk> is full" in page_of(run.state.root, tmp_path / "out").text


@pytest.mark.usefixtures("brief")
def test_hostile_texts_are_shown_and_harmless(tmp_path: Path) -> None:
    run = hostile(tmp_path)
    page = page_of(run.state.root, tmp_path / "out")
    raw = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for text in ("pwned", "alert(1)", "{{ 7 * 7 }}", "\\x1b[31m", "\\u202e", "more characters", "<b>run</b>"):
        assert text in page.text, text
    assert HOSTILE["emoji"] in raw and HOSTILE["arabic"] in raw
    for character in "\x00\x1b\x07\x9b\u202e\u2066\u200f":
        assert character not in raw
    assert not [tag for tag, _ in page.tags if tag == "img"] and sum(tag == "h1" for tag, _ in page.tags) == 1
    assert max(map(len, re.findall("x+", raw))) < 5000
    # Whatever direction a text has, it ends with its element.
    assert all(
        attributes.get("dir") == "auto"
        for tag, attributes in page.tags
        if tag == "bdi" or attributes.get("class") == "text"
    )


@pytest.mark.usefixtures("brief")
def test_constant_reputations_are_said_and_not_nan(tmp_path: Path) -> None:
    run = scripted(tmp_path, 3, reputation={"frozen": True}, **GRADED_FILES(tmp_path))
    assert typed("evaluate", run.state.root, "--all").returncode == 0
    page = page_of(run.state.root, tmp_path / "out")
    assert "reputations are all equal" in page.text


def GRADED_FILES(folder: Path) -> dict[str, object]:
    """The settings of a run whose answers a scripted judge grades, with its files below `folder`."""
    for split in ("validation", "test"):
        rows = (
            json.dumps({"id": f"{split}{n}", "prompt": f"{split} question {n}", "reference": "x"})
            for n in range(5)
        )
        (folder / f"{split}.jsonl").write_text("\n".join(rows) + "\n")
    return dict(GRADED)


@pytest.mark.usefixtures("brief")
def test_a_method_that_aligns_one_model_has_a_report(tmp_path: Path) -> None:
    run = scripted(tmp_path, 2, models=3, method="self_rewarding", baseline={"start": "model1"})
    page = page_of(run.state.root, tmp_path / "out")
    assert "iteration 2 of 3" in page.text and "None can be named yet" in page.text


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("iter_01/MANIFEST.json", "{", "MANIFEST.json"),
        ("run.json", '{"schema_version": 99}', "schema version 99"),
        ("iter_01/combats.jsonl", "{}\n", "combats.jsonl"),
        ("evals/summary.json", "[]", "summary.json"),
    ],
)
def test_what_is_broken_is_named(
    name: str, text: str, said: str, state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(state, copy)
    (copy / name).write_text(text)
    assert main([str(copy)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error and "Traceback" not in error
    assert not (copy / "report" / "report.html").exists()


@pytest.mark.usefixtures("brief")
def test_missing_evaluations_are_said(state: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(state, copy)
    shutil.rmtree(copy / "evals")
    text = page_of(copy, tmp_path / "out").text
    assert "Nobody knows yet" in text and "Nothing was scored yet" in text


@pytest.mark.long
@pytest.mark.usefixtures("brief")
def test_a_study_has_a_line_for_each_cell(tmp_path: Path) -> None:
    path = write_study(
        tmp_path, {"method": {"sparta": {}, "frozen": {"reputation.frozen": True}}, "seed": [0]}
    )
    done = typed("study", path, "--state", tmp_path / "study")
    assert done.returncode == 0, done.stderr
    page = page_of(tmp_path / "study", tmp_path / "out")
    assert "Study mini" in page.text and "2 of 2 cells done" in page.text
    for cell in load(tmp_path / "study").sources:
        assert cell.label in page.text
    board = scoreboard(load(tmp_path / "study"))
    made = {gain.level: gain for gain in level_gains(board)}
    assert set(made) == {"sparta", "frozen"}
    for level, gain in made.items():
        ours, theirs = (board.cells[row, gain.column].by_seed[0].values for row in (level, INITIAL))
        assert gain.difference == pytest.approx(sum(ours[item] - theirs[item] for item in ours) / len(ours))
        assert gain.low <= gain.difference <= gain.high and gain.in_words in page.text


@pytest.mark.usefixtures("brief")
def test_watch_ends_with_the_run_and_its_last_page_stays_still(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = scripted(tmp_path, 3)
    path = watch(run.state.root, tmp_path / "out", 1)
    assert (
        "data-reload"
        not in path.read_text().partition("<style>")[0] + path.read_text().partition("</style>")[2][:200]
    )
    assert capsys.readouterr().out.count("report:") == 1


@pytest.mark.usefixtures("brief")
def test_watch_makes_the_report_again_when_the_run_has_got_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, naps = scripted(tmp_path, 2), list[float]()

    def nap(seconds: float) -> None:
        naps.append(seconds)
        page = (tmp_path / "out" / "report.html").read_text()
        assert "iteration 2 of 3, not finished" in page and "data-reload" in page
        if len(naps) == 2:
            advance(run, 3)

    monkeypatch.setattr("analysis.report.time.sleep", nap)
    path = watch(run.state.root, tmp_path / "out", 7)
    assert naps == [7, 7] and "iteration 3 of 3, finished" in path.read_text()
    assert capsys.readouterr().out.count("report:") == 2


@pytest.mark.usefixtures("brief")
def test_watch_reports_what_cannot_be_read_and_tries_again_at_the_next_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, naps = scripted(tmp_path, 3), list[float]()
    path = run.iteration(1).combats
    text = path.read_text()
    path.write_text("{}\n")

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 2:
            path.write_text(text)

    monkeypatch.setattr("analysis.report.time.sleep", nap)
    watch(run.state.root, tmp_path / "out", 1)
    out, errors = capsys.readouterr()
    assert len(naps) == 2 and out.count("report:") == 1
    assert errors.count("error:") == 1 and "combats.jsonl" in errors


@pytest.mark.parametrize(
    ("states", "going"),
    [
        ({"a": "done", "b": "failed", "c": "waiting"}, False),
        ({"a": "done", "b": "done", "c": "running"}, True),
        ({"a": "waiting", "b": "failed", "c": "waiting"}, True),
    ],
)
def test_a_failed_cell_and_those_that_need_it_are_not_waited_for(
    states: dict[str, CellState], going: bool, found: Frames
) -> None:
    cells = [
        CellEntry(name, {}, "", "", "sparta", 0, "", state, needs=["b"] if name == "c" else [])
        for name, state in states.items()
    ]
    study = StudyManifest(1, "s", "", "", None, "all", {}, ("method", "sparta"), [], cells)
    head = replace(headline(found, found.sources[0]), going=True)
    assert _going(Frames(found.sources, study, ["c"]), {"b": head}) == going


@pytest.mark.usefixtures("brief")
def test_a_page_of_a_run_under_way_reloads_itself_under_watch(tmp_path: Path) -> None:
    run = scripted(tmp_path, 1)
    path, going = write_report(run.state.root, tmp_path / "out", reload_seconds=30)
    assert going and '<body data-reload="30">' in path.read_text()


@pytest.mark.usefixtures("brief")
def test_the_adapter_to_keep_is_there(found: Frames, state: Path) -> None:
    kept = keep(found, found.sources[0], gains(found, found.sources[0]))
    assert kept is not None and Path(kept.adapter).is_dir() and Path(kept.adapter).is_relative_to(state)


@pytest.mark.parametrize(
    ("rank", "option"), [(8, ""), (16, ""), (24, "--max-lora-rank 32 "), (64, "--max-lora-rank 64 ")]
)
def test_the_command_that_serves_an_adapter_raises_vllms_limit_of_the_rank(
    rank: int, option: str, state: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(state, copy)
    for path in copy.rglob("adapter_config.json"):
        path.write_text(json.dumps({"r": rank}))
    found = load(copy)
    kept = keep(found, found.sources[0], gains(found, found.sources[0]))
    assert kept is not None and f"--enable-lora {option}--lora-modules" in kept.commands[0]

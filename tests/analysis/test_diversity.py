"""analysis/diversity.py: tables and figure from what is on disk, each number against one by hand or of another library."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from msgspec.structs import replace
from support.openings import begin_or_continue
from support.scripted_run import advance, begin, rehearsal, typed

from sparta.errors import SpartaError
from sparta.evaluation.grade_sets import set_grades_folder
from sparta.evaluation.statistics import interval
from sparta.store import files
from sparta.store.layout import StateDir
from sparta.store.records import Pair, SampledAnswer, SetGrade
from sparta.store.run import Run
from sparta.store.shards import ShardWriter

sys.path.insert(0, str(Path(__file__).parents[2] / "analysis"))

from diversity import by_iteration, figure6, gaps, main, pairs, sets, table2, table8

JUDGE = {"base": "judge", "engine": {"kind": "scripted"}}
EMBEDDINGS = Path(sys.prefix) / "embeddings"
"""Where make puts sentence-transformers: see requirements/embeddings.txt."""


def sampled(
    folder: Path, texts: dict[str, dict[str, list[str]]], scores: dict[str, float | None], **options: object
) -> Run:
    """A run with two iterations whose sampled answers are `texts`, by checkpoint and item. scores: a judge's, by entry and item."""
    folder.mkdir(exist_ok=True)
    run = begin(folder, models=3, iterations=1, evaluation={"judge": JUDGE}, **options)
    advance(run, 1)
    place = run.state.evaluation("own", "validation").samples("chat-512-t0.7-p0.95-k50")
    with ShardWriter(place, 0, 0) as rows:
        for checkpoint, of_items in texts.items():
            for item, answers in of_items.items():
                for number, text in enumerate(answers):
                    rows.write(SampledAnswer("own", checkpoint, item, number, text, 1, 1, "stop"))
    with ShardWriter(set_grades_folder(run, place), 0, 0) as rows:
        for name, score in scores.items():
            entry, item = name.split(" ")
            rows.write(SetGrade("own", entry, item, 3 if "-" not in entry else 2, score, "", 1, 1, 1))
    return run


TEXTS = {
    "iter_00-model0": {"q0": ["ab", "ab"], "q1": ["aaaa", "aaaa"]},
    "iter_00-model1": {"q0": ["ad", "ab"], "q1": ["aaaa", "aaab"]},
    "iter_00-model2": {"q0": ["cd", "ab"], "q1": ["aaaa", ""]},
    "iter_01-model0": {"q0": ["same", "same"], "q1": ["x", "x"]},
    "iter_01-model1": {"q0": ["same", "same"], "q1": ["x"]},
    "iter_01-model2": {"q0": ["same", "same"], "q1": ["x", "x"]},
}
SCORES = {
    "iter_00 q0": 8.0,
    "iter_00 q1": None,
    "iter_01 q0": 1.0,
    "iter_01 q1": 2.0,
    "iter_00-model1 q0": 5.0,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return sampled(tmp_path_factory.mktemp("sampled"), TEXTS, SCORES)


def test_a_row_a_set_of_a_pool_and_of_a_model(run: Run) -> None:
    frame = sets(run)
    pool = frame[(frame["of"] == "pool") & (frame["iteration"] == 0)].set_index(["item_id", "number"])
    # The pairs of ab, ad, cd: 1/2, 2/2, 1/2. Of aaaa, aaab and an empty answer, which is left out: 1/4.
    assert pool.loc[("q0", 0), "edit"] == pytest.approx(2 / 3)
    assert pool.loc[("q0", 1), "edit"] == 0
    assert pool.loc[("q1", 1), ["edit", "left_out", "size"]].tolist() == [0.25, 1, 3]
    # Different words have no n-gram in common, and equal ones all.
    assert pool["bleu"].tolist() == [1, 0, 0, 1]
    assert pool.loc[("q0", 0), "llm"] == 8 and pool["llm"].count() == 1
    model = frame[(frame["of"] == "model")].set_index(["entry", "item_id"])
    assert model.loc[("iter_00-model1", "q0"), ["edit", "llm"]].tolist() == [0.5, 5]
    # One text is left: there is no distance.
    assert math.isnan(model.loc[("iter_00-model2", "q1"), "edit"])
    assert ("iter_01-model1", "q1") not in model.index
    assert len(frame[(frame["of"] == "pool") & (frame["iteration"] == 1)]) == 3
    assert frame["embed"].isna().all() and frame["sampling"].unique() == ["chat-512-t0.7-p0.95-k50"]


def test_what_lacks_answers_is_said(run: Run) -> None:
    assert gaps(run) == [
        "own: iter_01-model1 has 3 of 4 sampled answers; sets that lack one are left out",
        "own: 1 of 2 items of iter_01-model1 have fewer than two sampled answers and no set: q1",
    ]


def test_more_samples_of_some_items_leave_the_sets_and_grades_of_all(tmp_path: Path) -> None:
    from analysis.diversity_pieces import table2 as piece2
    from analysis.frames import load

    of_items = {"q0": ["ab", "ad", "cd", "ef"], "q1": ["x", "y"], "q2": ["x", "x"]}
    texts = {f"iter_00-model{number}": of_items for number in range(3)}
    run = sampled(tmp_path, texts, {"iter_00-model1 q0": 5.0, "iter_00-model1 q1": 7.0})
    frame = sets(run)
    mine = frame[frame["entry"] == "iter_00-model1"].set_index("item_id")
    assert mine["size"].to_dict() == {"q0": 2, "q1": 2, "q2": 2}
    assert mine.loc["q0", ["edit", "llm"]].tolist() == [0.5, 5] and mine.loc["q1", "llm"] == 7
    assert gaps(run) == [
        f"own: the items of {name} have 2 to 4 sampled answers; its sets are the first 2 of each"
        for name in texts
    ]
    assert {gap + "." for gap in gaps(run)} <= set(piece2(load(run.state.root)).notes)


def test_table_2_has_the_first_and_the_last_iteration_and_means_over_items(run: Run) -> None:
    table = table2(sets(run)).set_index(["of", "iteration"])
    # By item first: q0 has the mean of 2/3 and 0, q1 that of 0 and 1/4.
    assert table.loc[("pool", 0), "edit"] == pytest.approx((1 / 3 + 1 / 8) / 2)
    assert table.loc[("pool", 0), "llm"] == 8 and table.loc[("pool", 1), "llm"] == 1.5
    assert table.loc[("pool", 1), ["edit", "bleu", "items"]].tolist() == [0, 0, 2]
    assert table.columns.tolist() == [
        "run",
        "method",
        "task",
        "sampling",
        "edit",
        "bleu",
        "embed",
        "llm",
        "items",
    ]


def test_means_have_the_bootstrap_interval_over_items(run: Run) -> None:
    long = by_iteration(sets(run))
    [row] = long[(long["of"] == "pool") & (long["iteration"] == 0) & (long["metric"] == "edit")].to_dict(
        "records"
    )
    assert (row["low"], row["high"]) == interval([1 / 3, 1 / 8]) and row["items"] == 2
    assert "embed" not in set(long["metric"])


def test_processes_measure_the_same(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import diversity

    alone = sets(run, workers=1)
    monkeypatch.setattr(diversity, "_WORTH_PROCESSES", 2)
    pd.testing.assert_frame_equal(sets(run, workers=2), alone)


def test_figure_6_has_a_curve_over_iterations_for_each_metric(run: Run) -> None:
    figure = figure6(sets(run))
    assert [axis.get_title() for axis in figure.axes] == ["edit distance", "BLEU distance", "judge (1 to 10)"]
    [pool, model] = figure.axes[0].lines
    assert (pool.get_label(), model.get_label()) == ("one answer of each model", "answers of one model")
    assert pool.get_xdata().tolist() == [0, 1]
    assert pool.get_ydata().tolist() == pytest.approx([(1 / 3 + 1 / 8) / 2, 0])


# --- pairs


def pair(combat: str, chosen: str, rejected: str) -> Pair:
    return Pair(combat, (), chosen, rejected, (), (), ("", ""), (True, True), ("a", "b"), (8.0, 3.0))


@pytest.fixture(scope="module")
def paired(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("paired")
    run = begin_or_continue(StateDir(folder / "state"), rehearsal(folder))
    for t, rows in {
        1: [pair("01-0000", "aabb", "aaaa"), pair("01-0001", "one two three", "one one one one")],
        # Made before, of judgements, and one of this iteration.
        2: [pair("01-0001", "x y", "z"), pair("02-0001/3", "x", "z"), pair("02-0000", "a b a b", "a b")],
        # SPIN's: the chosen answer is gold.
        3: [replace(pair("03-0000", "gold", "own"), models=("", "a")), pair("03-0001", "aa", "ab")],
    }.items():
        run.iteration(t).root.mkdir(exist_ok=True)
        files.write_rows(run.iteration(t).preferences, rows)
    return run


def test_pairs_are_the_iteration_s_own_of_responses_with_signed_differences(paired: Run) -> None:
    frame = pairs(paired).set_index("combat_id")
    assert frame.index.tolist() == ["01-0000", "01-0001", "02-0000", "03-0001"]
    assert frame.loc["01-0000", "char"] == 1
    assert frame.loc["01-0001", "word"] == pytest.approx(math.log2(3))
    # Two different pairs of words against one pair, three times.
    assert frame.loc["01-0001", "2-gram"] == 1 and frame.loc["01-0001", "3-gram"] == 0
    assert frame.loc["02-0000", "word"] == 0 and math.isnan(frame.loc["02-0000", "3-gram"])
    assert math.isnan(frame.loc["01-0000", "2-gram"]) and frame["similarity"].isna().all()


def test_table_8_has_means_of_absolute_differences(paired: Run) -> None:
    frame = pairs(paired)
    frame.loc[0, "char"] = -1.0
    [row] = table8(frame).to_dict("records")
    assert row["pairs"] == 4
    assert row["char"] == pytest.approx(frame["char"].abs().mean())
    assert row["word"] == pytest.approx(math.log2(3) / 4)
    assert table8(frame, by=("iteration",))["pairs"].tolist() == [2, 1, 1]


# --- embeddings


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "green", "blue", "cat", "dog"]


def tiny_model(folder: Path) -> Path:
    """A BERT with random weights in the layout of bge: the vector of the first token, with length 1."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    torch.manual_seed(0)
    folder.mkdir()
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=32, **shape)).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for at, (path, kind) in enumerate(kinds.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": 32, "do_lower_case": True})
    )
    (folder / "1_Pooling").mkdir()
    pooling = {
        "word_embedding_dimension": 16,
        "pooling_mode_cls_token": True,
        "pooling_mode_mean_tokens": False,
    }
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


def first_vectors(folder: Path, texts: list[str]) -> np.ndarray:
    """The same with transformers alone."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        found = [
            model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0, 0].numpy() for text in texts
        ]
    return np.array([vector / np.linalg.norm(vector) for vector in found])


@pytest.fixture
def sentence_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes them importable."""
    assert EMBEDDINGS.is_dir(), f"{EMBEDDINGS} is missing: make test puts sentence-transformers there"
    monkeypatch.syspath_prepend(str(EMBEDDINGS))


TOY = ("adder", "mirror", "picker")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three toy models before and after one iteration, sampled."""
    folder = tmp_path_factory.mktemp("toy")
    models = ", ".join(f"{{name: {name}, adapter: 'embedded:{name}'}}" for name in TOY)
    settings = (
        f"pool.models=[{models}]",
        "combats=6",
        "evaluation.validation=4",
        "engine.kind=hf",
        "engine.threads=1",
    )
    words = [word for setting in settings for word in ("--set", setting)]
    done = typed(
        "launch", "--recipe", "toy", "--iters", 1, "--cluster", "inline", "--state", folder / "state", *words
    )
    assert done.returncode == 0, done.stderr
    done = typed("sample", folder / "state", "--samples", 3, "--temperature", 1.5, "--cluster", "inline")
    assert done.returncode == 0, done.stderr
    return folder / "state"


def test_real_models_are_sampled_and_measured_before_and_after_with_embeddings(
    toy: Path, tmp_path: Path, sentence_transformers: None, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_model(tmp_path / "tiny")
    assert main([str(toy), "--embeddings", str(model), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "Table 2" in said and "Table 8" in said
    frame = pd.read_csv(tmp_path / "out" / "sets.csv", dtype={"item_id": str})
    assert len(frame) == 2 * (4 * 3 + 3 * 4) and set(frame["iteration"]) == {0, 1}
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {
        "table2.csv",
        "table8.csv",
        "figure6.png",
        "pairs.csv",
    }
    assert frame["edit"].max() > 0 and frame["embed"].notna().all()
    # One set with transformers alone.
    rows = [
        json.loads(line)
        for path in toy.glob("evals/toy/validation/samples-*/*.jsonl")
        for line in path.read_text().splitlines()
    ]
    apart = frame[(frame["entry"] == "iter_01-mirror")].sort_values("edit").iloc[-1]
    texts = [
        row["text"]
        for row in rows
        if (row["checkpoint"], row["item_id"]) == ("iter_01-mirror", apart["item_id"])
    ]
    vectors = first_vectors(model, texts)
    cosines = (vectors @ vectors.T)[np.triu_indices(3, k=1)]
    assert apart["embed"] == pytest.approx(1 - cosines.mean(), abs=1e-5)


# --- what cannot be measured


def test_a_run_without_samples_still_has_table_8(
    paired: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(paired.state.root), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert (
        f"no answers were sampled, so there is no Table 2: python jobs/sample.py {paired.state.root}" in said
    )
    assert "3 of 4 pairs have no 3-gram entropy" in said
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"table8.csv", "pairs.csv"}


def test_two_runs_are_in_the_same_tables(
    run: Run, paired: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = ["--beside", str(paired.state.root)]
    assert main([str(run.state.root), *other, "--out", str(tmp_path / "out")]) == 0
    table = pd.read_csv(tmp_path / "out" / "table8.csv")
    assert str(paired.state.root) in set(table["run"])
    assert "2 of 18 sets have empty answers" in capsys.readouterr().out


def test_where_there_is_nothing_to_measure_or_no_such_model_it_says_so(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "new").mkdir()
    new = begin(tmp_path / "new")
    assert main([str(new.state.root)]) == 1
    assert "has neither sampled answers nor preference pairs" in capsys.readouterr().err
    for model, said in {
        str(tmp_path / "nowhere"): "give the folder of a model",
        "hub:org/sentences": "--set evaluation.embeddings=hub:org/sentences --fetch",
        str(tmp_path): "has no modules.json and no config.json and no model.safetensors",
    }.items():
        assert main([str(run.state.root), "--embeddings", model]) == 1
        assert said in capsys.readouterr().err
    with pytest.raises(SpartaError, match="no diversity to draw"):
        figure6(sets(new))


def test_the_pieces_of_a_report_are_the_same_tables(run: Run, paired: Run) -> None:
    from analysis import frames
    from analysis.diversity_pieces import figure6 as drawn
    from analysis.diversity_pieces import table2 as piece2
    from analysis.diversity_pieces import table8 as piece8
    from analysis.pieces import Absent

    found = frames.load(run.state.root)
    expected = table2(sets(run))
    made = piece2(found).frame
    assert made["edit"].tolist() == expected["edit"].tolist() and list(made.index.names) == [
        "of",
        "iteration",
    ]
    assert len(drawn(found).axes) == made.shape[1] - 1
    others = frames.load(paired.state.root)
    assert piece8(others).frame["pairs"].tolist() == table8(pairs(paired))["pairs"].tolist()
    with pytest.raises(Absent, match="no answers were sampled"):
        piece2(others)

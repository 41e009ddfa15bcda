"""What TRL makes of preference pairs: the state's own file never trains without the question, the exported one trains with it."""

import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import msgspec
import pytest
from support.one_model_runs import write_case
from support.openings import begin_or_continue
from support.scripted_run import advance, begin, sentence, typed
from support.tiny_models import make_base

from sparta.commands.export_pairs import export_pairs
from sparta.errors import SpartaError
from sparta.recipes.load import load
from sparta.screen import Screen
from sparta.store import files
from sparta.store.layout import StateDir
from sparta.store.records import Pair
from sparta.store.run import Run


def pairs_of(run: Run, t: int) -> list[Pair]:
    return list(files.read_rows(run.iteration(t).preferences, Pair))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two iterations committed, the third one begun; some responses of the first one cut at the token limit."""
    run = begin(tmp_path_factory.mktemp("run"), combats=6)
    advance(run, 1, upto="merge")
    first, second, *rest = pairs_of(run, 1)
    cut = [
        msgspec.structs.replace(first, finished=(False, True)),
        msgspec.structs.replace(second, finished=(True, False)),
    ]
    files.write_rows(run.iteration(1).preferences, [*cut, *rest])
    advance(run, 1)
    advance(run, 2)
    advance(run, 3, upto="merge")
    return run


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


def loaded(path: Path) -> datasets.Dataset:
    return datasets.load_dataset(
        "json", data_files=str(path), split="train", cache_dir=str(path.parent / "cache")
    )


def trainer(base: Path, dataset: datasets.Dataset, out: Path) -> Any:
    """TRL's DPOTrainer on a tiny model, as a person calls it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    return DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(base),
        args=DPOConfig(
            output_dir=str(out),
            max_steps=1,
            per_device_train_batch_size=2,
            report_to=[],
            use_cpu=True,
            bf16=False,
        ),
        train_dataset=dataset,
        processing_class=AutoTokenizer.from_pretrained(base),
    )


def test_the_exported_file_trains_with_the_question_of_each_pair(
    run: Run, base: Path, tmp_path: Path
) -> None:
    out = tmp_path / "pairs.jsonl"
    done = typed("export_pairs", run.iteration(1).root, "--out", out)
    assert done.returncode == 0, done.stderr
    trained = trainer(base, loaded(out), tmp_path / "out")
    tokenizer = trained.processing_class
    rows = list(trained.train_dataset)
    assert len(rows) == len(pairs_of(run, 1)) > 2
    for row, pair in zip(rows, pairs_of(run, 1), strict=True):
        question = pair.messages[-1].content
        prompt = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        assert tokenizer.decode(row["prompt_ids"]) == prompt
        assert tokenizer.decode(row["chosen_ids"]).startswith(f"{pair.chosen}<|im_end|>")
        assert tokenizer.decode(row["rejected_ids"]).startswith(f"{pair.rejected}<|im_end|>")
    assert trained.train().global_step == 1


def test_the_states_own_file_is_refused_by_trl(run: Run, base: Path, tmp_path: Path) -> None:
    own = loaded(run.iteration(1).preferences)
    assert own["prompt"][0] is None
    with pytest.raises((TypeError, ValueError)):
        trainer(base, own, tmp_path / "out")


def test_without_the_column_trl_would_train_without_the_question(
    run: Run, base: Path, tmp_path: Path
) -> None:
    """What the column is for; when this fails, TRL has changed and it may go."""
    from trl.data_utils import maybe_extract_prompt

    row = json.loads(run.iteration(1).preferences.read_text().splitlines()[0])
    assert maybe_extract_prompt(dict(row))["prompt"] is None
    extracted = maybe_extract_prompt({key: value for key, value in row.items() if key != "prompt"})
    assert isinstance(extracted["prompt"], str)
    assert row["messages"][-1]["content"] not in extracted["prompt"]


def test_a_state_stands_for_all_of_its_committed_iterations(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "pairs.jsonl"
    done = typed("export_pairs", run.state.root, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "of iter_01 to iter_02 written to" in done.stdout
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    pairs = [*pairs_of(run, 1), *pairs_of(run, 2)]
    assert [row["chosen"][0]["content"] for row in rows] == [pair.chosen for pair in pairs]
    assert [row["iteration"] for row in rows] == [1] * len(pairs_of(run, 1)) + [2] * len(pairs_of(run, 2))
    assert {tuple(row) for row in rows} == {("prompt", "chosen", "rejected", "iteration")}


def test_pairs_with_a_response_that_was_cut_are_counted_and_can_be_left_out(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = pairs_of(run, 1)
    export_pairs(run.iteration(1).root, tmp_path / "all.jsonl", False, Screen())
    assert "in 2 of them a response was cut at its token limit" in capsys.readouterr().out
    export_pairs(run.iteration(1).root, tmp_path / "some.jsonl", True, Screen())
    assert "2 pairs were left out: a response was cut at its token limit" in capsys.readouterr().out
    assert len((tmp_path / "some.jsonl").read_text().splitlines()) == len(pairs) - 2


def test_what_cannot_be_exported_is_said_and_nothing_is_overwritten(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "pairs.jsonl"
    for source, said in (
        (run.iteration(0).root, "is the initial pool"),
        (run.iteration(3).root, "is not committed"),
        (run.iteration(4).root, "does not exist"),
        (tmp_path, "is not an iteration"),
    ):
        assert said in sentence(typed("export_pairs", source, "--out", out))
    out.write_text("mine")
    assert "exists already" in sentence(typed("export_pairs", run.state.root, "--out", out))
    assert out.read_text() == "mine"


def test_preferences_that_were_changed_are_refused(tmp_path: Path) -> None:
    run = begin(tmp_path, combats=6)
    advance(run, 1)
    with run.iteration(1).preferences.open("a") as file:
        file.write("\n")
    done = typed("export_pairs", run.state.root, "--out", tmp_path / "pairs.jsonl")
    assert "was changed since its iteration was committed" in sentence(done)


def test_rows_that_an_earlier_version_wrote_are_read(run: Run, tmp_path: Path) -> None:
    path = run.iteration(1).preferences
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    older = tmp_path / "older.jsonl"
    older.write_text(
        "".join(json.dumps({key: row[key] for key in row if key != "prompt"}) + "\n" for row in rows)
    )
    assert list(files.read_rows(older, Pair)) == pairs_of(run, 1)


def test_what_a_killed_export_left_goes_with_the_next_one(run: Run, tmp_path: Path) -> None:
    (tmp_path / f".pairs.jsonl.{'0' * 16}.tmp").write_text("half of th")
    export_pairs(run.state.root, tmp_path / "pairs.jsonl", False, Screen())
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.jsonl"]


def test_an_iteration_that_is_missing_among_others_is_not_left_out(run: Run, tmp_path: Path) -> None:
    state = StateDir(shutil.copytree(run.state.root, tmp_path / "state"))
    state.iteration(1).manifest.unlink()
    with pytest.raises(SpartaError, match=r"iter_01/MANIFEST\.json is missing, and iterations after it"):
        export_pairs(state.root, tmp_path / "pairs.jsonl", False, Screen())
    assert not (tmp_path / "pairs.jsonl").exists()


def test_a_pair_that_is_trained_on_in_two_iterations_is_written_once_with_the_one_that_made_it(
    tmp_path: Path, base: Path
) -> None:
    """SPIN keeps the pairs of the previous iteration in."""
    run = begin_or_continue(StateDir(tmp_path / "state"), load(write_case(tmp_path, "spin", combats=3)))
    for t in (1, 2, 3):
        advance(run, t)
    assert [len(pairs_of(run, t)) for t in (1, 2, 3)] == [3, 6, 6]
    out = tmp_path / "all.jsonl"
    done = typed("export_pairs", run.state.root, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "9 preference pairs of iter_01 to iter_03" in done.stdout
    assert "6 pairs that an iteration kept from the one before are written once" in done.stdout
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert len({json.dumps(row) for row in rows}) == 9
    assert trainer(base, loaded(out), tmp_path / "out").train().global_step == 1
    # Of one iteration, all pairs that it was trained on.
    export_pairs(run.iteration(2).root, tmp_path / "second.jsonl", False, Screen())
    rows = [json.loads(line) for line in (tmp_path / "second.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [2, 2, 2, 1, 1, 1]

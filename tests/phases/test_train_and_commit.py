"""Train and commit: how a model sees a pair, and nothing incomplete is committed."""

import shutil
from pathlib import Path

import msgspec
import pytest
from support.scripted_run import advance, begin

from sparta.chat.renderer import Renderer
from sparta.chat.template import Message
from sparta.engines.scripted import ByteTokenizer
from sparta.errors import SpartaError
from sparta.phases.commit import Commit
from sparta.phases.train import Train, example_of
from sparta.store import files
from sparta.store.records import Pair, Trained
from sparta.store.shards import read_shards

RENDERER = Renderer(ByteTokenizer(), 1000)
PAIR = Pair(
    combat_id="c",
    messages=(Message("user", "why?"),),
    chosen="yes",
    rejected="no",
    chosen_token_ids=(1, 2, 257),
    rejected_token_ids=(3, 4),
    tokenizers=("mine", "theirs"),
    finished=(True, False),
    models=("ada", "bea"),
    scores=(8.0, 3.0),
)


def test_a_response_of_the_same_tokenizer_is_read_with_the_ids_that_were_sampled() -> None:
    example = example_of(PAIR, RENDERER, "mine")
    assert example.prompt_ids == RENDERER.combat(PAIR.messages).token_ids
    assert example.chosen_ids == (1, 2, 257)


def test_a_response_of_another_tokenizer_is_re_tokenized_and_ends_only_if_it_ended() -> None:
    assert example_of(PAIR, RENDERER, "mine").rejected_ids == tuple(b"no")
    assert example_of(PAIR, RENDERER, "theirs").chosen_ids == (*b"yes", ByteTokenizer.END)
    assert example_of(PAIR, RENDERER, "theirs").rejected_ids == (3, 4)


def test_a_response_without_ids_is_encoded() -> None:
    pair = msgspec.structs.replace(PAIR, chosen_token_ids=())
    assert example_of(pair, RENDERER, "mine").chosen_ids == (*b"yes", ByteTokenizer.END)


def test_every_model_learns_from_every_pair_and_continues_its_own_adapter(tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 1)
    rows = read_shards(run.iteration(1).training, Trained)
    pairs = len(run.iteration(1).preferences.read_text().splitlines())
    assert {name: row.pairs for name, row in rows.items()} == dict.fromkeys(run.models, pairs)
    after, before = run.pool(1), run.pool(0)
    for name in run.models:
        assert after[name].adapter == f"iter_01/adapters/{name}"
        assert after[name].base == before[name].base
        assert (
            after[name].sha256
            == files.sha256_tree(run.state.root / after[name].adapter)
            != before[name].sha256
        )


def test_an_adapter_whose_row_was_never_written_gets_its_row_and_is_not_trained_again(tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 1, upto="train")
    adapter = run.iteration(1).adapter("model2")
    before = files.sha256_tree(adapter)
    [path] = run.iteration(1).training.iterdir()
    path.write_text("".join(line for line in path.open() if '"model2"' not in line))
    written = (adapter / "adapter_model.safetensors").stat().st_mtime_ns
    assert [item.key for item in Train().missing(run, 1)] == ["model2"]
    advance(run, 1)
    assert files.sha256_tree(adapter) == before == run.pool(1)["model2"].sha256
    assert (adapter / "adapter_model.safetensors").stat().st_mtime_ns == written


@pytest.mark.parametrize("what", ["adapter", "row"])
def test_a_missing_adapter_is_not_committed(what: str, tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 1, upto="train")
    if what == "adapter":
        shutil.rmtree(run.iteration(1).adapter("model1"))
    else:
        [path] = run.iteration(1).training.iterdir()
        path.write_text("".join(line for line in path.open() if '"model1"' not in line))
    with pytest.raises(SpartaError, match="adapters/model1 is missing: training of model1 is not complete"):
        Commit().execute(run, 1)
    assert not run.iteration(1).manifest.exists()


def test_an_adapter_that_is_not_what_training_made_is_not_committed(tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 1, upto="train")
    weights = run.iteration(1).adapter("model1") / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with pytest.raises(SpartaError, match="adapters/model1 is not what training of model1 made"):
        Commit().execute(run, 1)
    assert not run.iteration(1).manifest.exists()


def test_committing_twice_changes_nothing(tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 1)
    before = run.iteration(1).manifest.read_bytes()
    Commit().execute(run, 1)
    assert run.iteration(1).manifest.read_bytes() == before


def test_the_next_iteration_starts_from_the_adapters_of_this_one(tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 1)
    advance(run, 2)
    assert {member.adapter for member in run.pool(2).values()} == {
        f"iter_02/adapters/{name}" for name in run.models
    }
    assert all(run.pool(2)[name].sha256 != run.pool(1)[name].sha256 for name in run.models)

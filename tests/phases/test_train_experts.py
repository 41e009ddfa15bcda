"""Experts from data: each trained on the recipe's data as of the run's start, and verified before it joins the pool."""

import shutil
from pathlib import Path

import msgspec
import pytest
from support.expert_recipes import write_lessons, write_school
from support.openings import begin_or_continue
from support.scripted_run import advance, write_adapter

from sparta.commands.begin import check_state
from sparta.errors import SpartaError
from sparta.phases.init_pool import InitPool
from sparta.phases.train_experts import TrainExperts
from sparta.pool.expert_data import gather_sft_data
from sparta.recipes.load import load
from sparta.store import files
from sparta.store.layout import StateDir
from sparta.store.records import SftDataInfo, TrainedExpert
from sparta.store.run import Run
from sparta.store.shards import read_shards


def begin(folder: Path, **options: object) -> Run:
    return begin_or_continue(StateDir(folder / "state"), load(write_school(folder, **options)))  # type: ignore[arg-type]


def rows(run: Run) -> dict[str, TrainedExpert]:
    return read_shards(run.iteration(0).training, TrainedExpert)


def test_every_expert_is_trained_on_its_own_data_and_becomes_a_member(tmp_path: Path) -> None:
    write_lessons(tmp_path / "lessons" / "bea.jsonl", 9)
    run = begin(tmp_path)
    advance(run, 0)
    found = rows(run)
    assert {name: row.rows for name, row in found.items()} == {"ada": 6, "bea": 9, "cem": 6, "dov": 6}
    # Two epochs, two rows a step, eight steps an update.
    assert {name: row.steps for name, row in found.items()} == {"ada": 1, "bea": 2, "cem": 1, "dov": 1}
    for name, member in run.pool(0).items():
        assert member.adapter == f"iter_00/adapters/{name}" and member.base == "none"
        assert member.sha256 == files.sha256_tree(run.state.root / member.adapter) == found[name].sha256
    assert len({row.sha256 for row in found.values()}) == 4
    assert not list((run.state.jobs / "iter_00" / "sft").glob("start-*")), "what it began with is not kept"


def test_equal_recipes_give_equal_experts_and_another_seed_others(tmp_path: Path) -> None:
    made, path = {}, write_school(tmp_path)
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        run = begin_or_continue(StateDir(tmp_path / name), load(path, [f"seed={seed}"]))
        advance(run, 0)
        made[name] = run.pool(0)
    assert made["one"] == made["two"]
    assert all(made["one"][name].sha256 != made["three"][name].sha256 for name in run.models)


def test_a_pool_may_have_experts_beside_adapters_and_copies(tmp_path: Path) -> None:
    write_adapter(tmp_path / "adapters" / "old", 3)
    others = [{"name": "old", "adapter": "./adapters/old"}, {"name": "twin", "copy_of": "ada"}]
    run = begin(tmp_path, names=("ada",), others=others)
    assert [item.key for item in TrainExperts().work(run, 0)] == ["ada"]
    advance(run, 0)
    pool = run.pool(0)
    assert list(pool) == ["ada", "old", "twin"]
    assert pool["twin"].adapter == pool["ada"].adapter and pool["twin"].sha256 == pool["ada"].sha256
    assert pool["old"].sha256 == files.sha256_tree(run.iteration(0).adapter("old"))
    advance(run, 1)
    assert len({member.adapter for member in run.pool(1).values()}) == 3


def test_a_pool_without_experts_is_there_as_soon_as_the_run_begins(tmp_path: Path) -> None:
    for seed, name in enumerate(("one", "two", "three")):
        write_adapter(tmp_path / "adapters" / name, seed)
    others = [{"name": name, "adapter": f"./adapters/{name}"} for name in ("one", "two", "three")]
    run = begin(tmp_path, names=(), others=others)
    assert run.state.committed() == [0] and not run.state.sft_data.exists()


def test_a_row_that_is_too_long_is_dropped_and_counted(tmp_path: Path) -> None:
    lines = write_lessons(tmp_path / "lessons" / "ada.jsonl", 7).read_text().splitlines()
    lines[3] = lines[3].replace("Sure", "Sure, sure " * 20)
    (tmp_path / "lessons" / "ada.jsonl").write_text("\n".join(lines) + "\n")
    run = begin(tmp_path, sft={"max_length": 200})
    advance(run, 0)
    assert (rows(run)["ada"].rows, rows(run)["ada"].dropped) == (6, 1)
    assert rows(run)["bea"].dropped == 0


def test_the_cost_of_a_training_follows_from_characters_and_epochs(tmp_path: Path) -> None:
    write_lessons(tmp_path / "lessons" / "bea.jsonl", 60)
    run = begin(tmp_path)
    costs = {item.key: item.cost for item in TrainExperts().work(run, 0)}
    assert costs["bea"] == pytest.approx(2 * run.sft_data["bea"].characters / 4)
    assert 8 < costs["bea"] / costs["ada"] < 12


def test_data_that_changes_before_an_expert_is_trained_is_noticed(tmp_path: Path) -> None:
    run = begin(tmp_path)
    path = tmp_path / "lessons" / "bea.jsonl"
    path.write_text(path.read_text().replace("bea 3?", "bea 4?"))
    with pytest.raises(
        SpartaError, match=r"model bea: .*bea.jsonl was changed since the run began \(other content\)"
    ):
        advance(run, 0)
    assert set(rows(run)) == {"ada"} and run.state.committed() == []
    write_lessons(path, 6)
    advance(run, 0)
    assert run.state.committed() == [0]


def test_data_that_changes_afterwards_does_not_matter(tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 0)
    shutil.rmtree(tmp_path / "lessons")
    again = begin_or_continue(run.state, None)
    advance(again, 1)
    assert again.state.committed() == [0, 1]


def test_what_was_noted_of_the_data_may_not_be_edited(tmp_path: Path) -> None:
    run = begin(tmp_path)
    noted = files.read_json(run.state.sft_data, dict[str, SftDataInfo])
    files.write_json(run.state.sft_data, {**noted, "ada": msgspec.structs.replace(noted["ada"], rows=7)})
    with pytest.raises(SpartaError, match=r"data/lessons.json is missing or was changed since the run began"):
        begin_or_continue(run.state, None)


@pytest.mark.parametrize("what", ["adapter", "row"])
def test_a_pool_that_lacks_an_expert_is_not_committed(what: str, tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 0, upto="sft")
    if what == "adapter":
        shutil.rmtree(run.iteration(0).adapter("bea"))
    else:
        [path] = run.iteration(0).training.iterdir()
        path.write_text("".join(line for line in path.open() if '"bea"' not in line))
    with pytest.raises(SpartaError, match="adapters/bea is missing: training of bea is not complete"):
        InitPool().execute(run, 0)
    assert not run.iteration(0).manifest.exists()


def test_an_expert_that_is_not_what_training_made_is_not_committed(tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 0, upto="sft")
    weights = run.iteration(0).adapter("cem") / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with pytest.raises(SpartaError, match="adapters/cem is not what training of cem made"):
        InitPool().execute(run, 0)


def test_an_edited_row_of_a_training_is_found_after_the_commit(tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 0)
    [path] = run.iteration(0).training.iterdir()
    path.write_text(path.read_text().replace('"rows":6', '"rows":5', 1))
    with pytest.raises(SpartaError, match="rows of .*training were changed after the commit"):
        check_state(run)


def test_data_that_cannot_be_had_names_the_model(tmp_path: Path) -> None:
    recipe = load(write_school(tmp_path))
    (tmp_path / "lessons" / "dov.jsonl").unlink()
    with pytest.raises(SpartaError, match="model dov: .*dov.jsonl"):
        gather_sft_data(recipe)


def test_an_expert_of_a_real_base_learns(tiny_base: Path, tmp_path: Path) -> None:
    """Real training: the loss falls, and the pool that it makes plays."""
    run = begin(
        tmp_path,
        names=("ada", "bea", "cem"),
        rows=24,
        base=str(tiny_base),
        sft={
            "epochs": 4,
            "accumulation": 1,
            "batch_size": 4,
            "learning_rate": 0.01,
            "gradient_checkpointing": False,
        },
        lora={"rank": 4, "alpha": 8},
        combats=3,
        engine={"kind": "hf", "context_length": 256},
        generation={"max_new_tokens": 4},
        judging={"mode": "expected"},
    )
    advance(run, 0)
    for row in rows(run).values():
        assert row.steps == 24 and row.first_loss is not None and row.last_loss is not None
        assert row.last_loss < 0.7 * row.first_loss
    advance(run, 1)
    assert run.state.committed() == [0, 1]

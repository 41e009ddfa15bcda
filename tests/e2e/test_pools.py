"""Pools of full models, and of two bases that tokenize differently, through a whole Sparta iteration on both local engines."""

import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import yaml
from safetensors.numpy import load_file
from support import tiny_models
from support.real_data import rows
from support.scripted_run import typed

needs_vllm = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None,
    reason="vllm is not installed: `make unit` installs its CPU build",
)
ENGINES = ["hf", pytest.param("vllm", marks=needs_vllm)]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two bases, of different depths and with different tokenizers."""
    folder = tmp_path_factory.mktemp("bases")
    return {
        "one": tiny_models.make_base(folder / "one", width=128),
        "other": tiny_models.make_base(
            folder / "other", width=128, layers=1, seed=1, merges=[("o", "n"), ("a", "n")]
        ),
    }


def played(folder: Path, engine: str, base: Path, models: Sequence[Mapping[str, object]]) -> tuple[Path, str]:
    """The state of one iteration of these members, and what the launch said."""
    (folder / "prompts.jsonl").write_text(
        "".join(json.dumps({"prompt": f"Count on and on from {n}."}) + "\n" for n in range(6))
    )
    tree = {
        "name": "pools",
        "combats": 5,
        "iterations": 1,
        "pool": {"base": str(base), "models": list(models), "lora": {"rank": 4}},
        "data": {"train": "prompts.jsonl"},
        "generation": {"max_new_tokens": 6},
        "judging": {"mode": "expected"},
        "dpo": {"learning_rate": 1e-3},
        "engine": {
            "kind": engine,
            "device": "cpu",
            "context_length": 512,
            "threads": 1,
            "vllm": {"own_process": False, "cpu_cache_gib": 0.25, "sequences": 16},
        },
        "cluster": {"kind": "inline"},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(tree))
    done = typed("launch", "--recipe", folder / "recipe.yaml", "--state", folder / "state")
    assert done.returncode == 0, done.stderr
    return folder / "state", done.stdout


def trained(state: Path, model: str) -> bool:
    """Whether the adapter of `model` after iteration 1 is its first one, as this one's tensors are named, and has another content."""
    [first] = [
        row for row in json.loads((state / "iter_00" / "pool.json").read_text()) if row["name"] == model
    ]
    before = load_file(state / first["adapter"] / "adapter_model.safetensors")
    after = load_file(state / "iter_01" / "adapters" / model / "adapter_model.safetensors")
    assert before.keys() == after.keys()
    return any((before[name] != after[name]).any() for name in before)


def judged_and_learned(state: Path, names: Sequence[str]) -> Iterator[dict[str, object]]:
    """What was trained of every member, once all combats are played and voted on by all others."""
    combats = rows(state / "iter_01" / "plan.jsonl")
    votes = [row for path in (state / "iter_01" / "votes").glob("*.jsonl") for row in rows(path)]
    assert len(votes) == 2 * len(combats) * (len(names) - 2)
    assert all(vote["score"] is not None for vote in votes)
    learned = [row for path in (state / "iter_01" / "training").glob("*.jsonl") for row in rows(path)]
    assert sorted(row["model"] for row in learned) == sorted(names)
    yield from learned


@pytest.mark.parametrize("engine", ENGINES)
def test_full_models_play_and_learn_in_adapters_of_their_own(
    engine: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    names = ["ada", "bea", "cem", "twin"]
    state, _ = played(
        tmp_path,
        engine,
        bases["one"],
        [*({"name": name} for name in names[:3]), {"name": "twin", "copy_of": "bea"}],
    )
    for row in judged_and_learned(state, names):
        assert row["first_loss"] == pytest.approx(0.6931, abs=1e-3)
    assert all(trained(state, name) for name in names)
    zero = {row["name"]: row["sha256"] for row in json.loads((state / "iter_00" / "pool.json").read_text())}
    one = {row["name"]: row["sha256"] for row in json.loads((state / "iter_01" / "pool.json").read_text())}
    assert len(set(zero.values())) == 3 and zero["twin"] == zero["bea"]
    assert len(set(one.values())) == 4


@pytest.mark.parametrize("engine", ENGINES)
def test_models_on_two_bases_with_different_tokenizers_play_and_learn_from_each_other(
    engine: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    adapter = tiny_models.make_adapter(tmp_path / "adapter", bases["one"], seed=3)
    other = str(bases["other"])
    state, said = played(
        tmp_path,
        engine,
        bases["one"],
        [
            {"name": "ada", "adapter": str(adapter)},
            {"name": "bea"},
            {"name": "cem", "base": other},
            {"name": "dov", "base": other},
        ],
    )
    assert "have different tokenizers: responses are re-tokenized for training" in " ".join(said.split())
    names = ["ada", "bea", "cem", "dov"]
    pairs = rows(state / "iter_01" / "preferences.jsonl")
    assert len({tokenizer for pair in pairs for tokenizer in pair["tokenizers"]}) == 2
    for row in judged_and_learned(state, names):
        assert row["pairs"] == len(pairs)
        assert row["first_loss"] == pytest.approx(0.6931, abs=1e-3)
    assert all(trained(state, name) for name in names)

"""Answers of another run are adopted where nothing differs that they depend on, and nowhere else."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.openings import begin_or_continue
from support.scripted_run import advance, write_recipe
from support.study_runs import GRADED

from sparta.cluster.attempts import TaskRecord
from sparta.commands.answers_source import source_of_answers
from sparta.commands.evaluate import score
from sparta.commands.evaluate_request import EvaluateRequest
from sparta.engines.base import Completion, Request
from sparta.engines.scripted import ScriptedEngine
from sparta.errors import SpartaError
from sparta.evaluation.summary import read_summary
from sparta.recipes.load import load
from sparta.screen import Screen
from sparta.store import files
from sparta.store.layout import StateDir
from sparta.store.run import Run


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of all requests that engines get."""
    keys: list[str] = []
    complete = ScriptedEngine._complete

    def watched(engine: ScriptedEngine, request: Request, began: float) -> Completion:
        keys.append(request.key)
        return complete(engine, request, began)

    monkeypatch.setattr(ScriptedEngine, "_complete", watched)
    return keys


def run_of(folder: Path, name: str, **changes: Any) -> Run:
    """A run of one iteration; runs in one folder have the same adapters and items."""
    folder.mkdir(exist_ok=True)
    recipe = write_recipe(folder, models=3, combats=6, iterations=1, **{**GRADED, **changes})
    for split in ("validation", "test"):
        path = folder / f"{split}.jsonl"
        if not path.exists():
            rows = (
                json.dumps({"id": f"{split}{n}", "prompt": f"{split} {n}", "reference": "x"})
                for n in range(4)
            )
            path.write_text("\n".join(rows) + "\n")
    run = begin_or_continue(StateDir(folder / name), load(recipe))
    advance(run, 1)
    return run


def scored(run: Run, other: Run | None = None) -> dict[str, Any]:
    source = other.state.root if other is not None else None
    score(EvaluateRequest(state=run.state.root, every=True, answers_from=source), Screen())
    return read_summary(run.state).tasks


def of_initial_pool(asked: list[str]) -> list[str]:
    return [key for key in asked if "/iter_00-" in key]


def test_the_initial_pool_answers_once_and_scores_are_as_without(tmp_path: Path, asked: list[str]) -> None:
    first, second = run_of(tmp_path, "first"), run_of(tmp_path, "second", seed=5)
    scored(first)
    asked.clear()
    adopted = scored(second, first)
    assert of_initial_pool(asked) == []
    # The trained models are others, and answer themselves: three models, four items, and a grade each.
    assert sum("/iter_01-" in key for key in asked) >= 24
    assert adopted == scored(run_of(tmp_path, "alone", seed=5))


@pytest.mark.parametrize(
    "changes",
    [
        {"evaluation": {**GRADED["evaluation"], "max_new_tokens": 40}},
        {"engine": {"kind": "scripted", "context_length": 2000}},
        {"chat": {"date": "2020-02-02"}},
    ],
    ids=["prompt format", "engine", "chat"],
)
def test_what_an_answer_depends_on_must_be_the_same(
    changes: dict[str, Any], tmp_path: Path, asked: list[str]
) -> None:
    first = run_of(tmp_path, "first")
    scored(first)
    second = run_of(tmp_path, "second", **changes)
    asked.clear()
    scored(second, first)
    assert len(of_initial_pool(asked)) >= 12


def test_a_source_that_was_changed_gives_nothing(tmp_path: Path) -> None:
    first, second = run_of(tmp_path, "first"), run_of(tmp_path, "second", seed=5)
    scored(first)
    first.iteration(1).combats.write_bytes(b"")
    with pytest.raises(SpartaError, match=r"combats.jsonl was changed after the commit"):
        scored(second, first)


@pytest.mark.parametrize(
    ("settings", "devices", "adopts"),
    [
        ({"kind": "auto"}, ("0", None), False),
        ({"kind": "auto"}, ("0", "1"), True),
        ({"kind": "auto"}, (None, None), True),
        ({"kind": "auto"}, ("0", "nothing ran"), False),
        ({"kind": "vllm"}, ("0", None), False),
        ({"kind": "hf"}, ("0", None), False),
        ({"kind": "vllm", "dtype": "bfloat16"}, ("0", None), True),
        ({"kind": "auto", "device": "cuda"}, (None, None), True),
        ({"kind": "scripted"}, ("0", None), True),
    ],
)
def test_what_the_machine_decides_must_have_been_decided_alike(
    settings: dict[str, str],
    devices: tuple[str | None, str | None],
    adopts: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The bases of this pool have no files, so they count as large.
    monkeypatch.setattr("sparta.engines.small_base.is_small", lambda base: False)
    runs = []
    for name, gpus in zip(("first", "second"), devices, strict=True):
        run = run_of(tmp_path, name)
        for path in run.state.jobs.rglob("a*-0*.json"):
            record = files.read_json(path, TaskRecord)
            files.write_json(path, msgspec.structs.replace(record, gpus=gpus))
        if gpus == "nothing ran":
            files.remove(run.state.jobs)
        engine = run.recipe.engine.model_copy(update=settings)
        run.recipe = run.recipe.model_copy(update={"engine": engine})
        run.freeze()
        info = msgspec.structs.replace(run.info, recipe_hash=run.recipe.hash)
        files.write_json(run.state.run_json, info)
        runs.append(Run(run.state, run.recipe, info))
    said: list[str] = []
    found = source_of_answers(runs[1], runs[0].state.root, said.append)
    assert (found is not None) == adopts
    assert adopts or "set engine.kind and engine.dtype in both recipes" in said[0]


def test_other_items_and_other_adapters_are_not_taken_for_the_same(tmp_path: Path, asked: list[str]) -> None:
    first = run_of(tmp_path, "first")
    scored(first)
    # One item has other words under the same id.
    path = tmp_path / "validation.jsonl"
    path.write_text(path.read_text().replace("validation 2", "changed 2"))
    second = run_of(tmp_path, "second")
    asked.clear()
    scored(second, first)
    answers = {
        key for key in of_initial_pool(asked) if key.startswith("own/iter_00") and "/score/" not in key
    }
    assert {key.rpartition("/")[2] for key in answers if "validation" in key} == {"validation2"}


def test_only_the_same_weights_share_answers(tmp_path: Path, asked: list[str]) -> None:
    first = run_of(tmp_path, "first")
    scored(first)
    weights = tmp_path / "adapters" / "model1" / "adapter_model.safetensors"
    weights.write_bytes(
        (tmp_path / "adapters" / "model2" / "adapter_model.safetensors").read_bytes()[:-1] + b"\1"
    )
    second = run_of(tmp_path, "second")
    asked.clear()
    scored(second, first)
    assert {key.split("/")[1] for key in of_initial_pool(asked) if "validation" in key} == {"iter_00-model1"}

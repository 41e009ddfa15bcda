"""Pools on templates as families of models have them, through a whole iteration: what it comes to does not depend on the day."""

import json
from collections.abc import Callable
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

import pytest
from support import tiny_models
from support.chat_templates import GEMMA_LIKE, LLAMA_LIKE, PARTS, WITHOUT_SYSTEM
from support.openings import begin_or_continue
from support.scripted_run import advance
from transformers.utils import chat_template_utils

from sparta.engines.factory import close_engine
from sparta.errors import SpartaError
from sparta.recipes.schema import Recipe
from sparta.store.layout import StateDir
from sparta.store.run import Run

Pool = Callable[..., dict[str, Any]]


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets the clock that runs and templates read, in ISO's spelling."""

    def to(moment: str) -> None:
        class Clock(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> datetime:
                return datetime.fromisoformat(moment).replace(tzinfo=tz)

        for module in ("sparta.store.run", chat_template_utils.__name__):
            monkeypatch.setattr(f"{module}.datetime", Clock)

    return to


def pool_on(folder: Path, template: str) -> dict[str, Any]:
    """A pool of four random members on a random base with this template."""
    base = tiny_models.make_base(folder / "base", template=template)
    names = ("ada", "bea", "cem", "dov")
    adapters = {
        name: tiny_models.make_adapter(folder / name, base, seed=seed) for seed, name in enumerate(names)
    }
    models = [{"name": name, "adapter": str(path)} for name, path in adapters.items()]
    return {"base": str(base), "models": models}


def begin(folder: Path, pool: dict[str, Any], engine: str = "hf", **sections: object) -> Run:
    """A run in `folder`, carried out in this process on one CPU core."""
    folder.mkdir()
    questions = folder.parent / "train.jsonl"
    questions.write_text("".join(json.dumps({"prompt": f"the question {n}"}) + "\n" for n in range(20)))
    small = {"own_process": False, "cpu_cache_gib": 0.25, "sequences": 16}
    recipe = Recipe.model_validate(
        {
            "name": "templates",
            "iterations": 1,
            "combats": 6,
            "pool": pool,
            "data": {"train": str(questions)},
            "generation": {"max_new_tokens": 8},
            "judging": {"mode": "expected"},
            "dpo": {"learning_rate": 1e-3, "max_length": 256, "batch_size": 4},
            "engine": {"kind": engine, "device": "cpu", "threads": 1, "context_length": 512, "vllm": small},
            "cluster": {"kind": "inline"},
            **sections,
        }
    )
    return begin_or_continue(StateDir(folder), recipe)


def manifests(run: Run) -> list[bytes]:
    return [run.iteration(t).manifest.read_bytes() for t in run.state.committed()]


@pytest.mark.parametrize(
    ("template", "turns", "said"),
    [
        (PARTS, ["user"], "wants content as a list of parts, .* leaves out the user turn"),
        (
            WITHOUT_SYSTEM,
            ["system", "user"],
            r"leaves out the system turn, .* \(of those prompts p000002 is one\)",
        ),
        (
            GEMMA_LIKE,
            ["system", "user"],
            r"refuses a prompt with the roles system, user .* \(of those prompts p000002 is one\)",
        ),
    ],
)
def test_a_pool_whose_template_would_not_show_an_instruction_is_refused_before_there_is_a_run(
    tmp_path: Path, template: str, turns: list[str], said: str
) -> None:
    pool = pool_on(tmp_path, template)
    rows = [["user"], turns]
    questions = tmp_path / "mixed.jsonl"
    questions.write_text(
        "".join(
            json.dumps({"messages": [{"role": role, "content": f"{n}"} for n, role in enumerate(row)]}) + "\n"
            for row in rows
        )
    )
    with pytest.raises(SpartaError, match=f"chat template of base {tmp_path}/base {said}"):
        begin(tmp_path / "state", pool, data={"train": str(questions)})
    assert list((tmp_path / "state").iterdir()) == []


def test_a_run_that_goes_on_after_midnight_is_the_run_that_did_not(
    tmp_path: Path, set_clock: Callable[[str], None]
) -> None:
    pool = pool_on(tmp_path, LLAMA_LIKE)
    set_clock("2026-11-28T23:58:00")
    whole, halves = begin(tmp_path / "whole", pool), begin(tmp_path / "halves", pool)
    advance(whole, 1)
    advance(halves, 1, upto="judge")
    close_engine()
    set_clock("2026-11-29T00:02:00")
    again = begin_or_continue(halves.state, None)
    advance(again, 1)
    close_engine()
    assert manifests(again) == manifests(whole)
    assert len(manifests(again)) == 2

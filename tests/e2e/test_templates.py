"""Pools on templates as families of models have them, through a whole iteration on both local engines, whatever day it is."""

import importlib.util
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

import pytest
from support import thinking_models
from support.chat_templates import GEMMA_LIKE, LLAMA_LIKE, PARTS, QWEN3_LIKE, WITHOUT_SYSTEM
from support.engine_contract import SAMPLED, answers, ref, request, settings
from support.openings import begin_or_continue
from support.scripted_run import advance
from transformers.utils import chat_template_utils

from sparta.chat.judge_prompts import judging_pattern
from sparta.engines.factory import close_engine, open_engine
from sparta.errors import SpartaError
from sparta.phases.merge import read_pairs
from sparta.recipes.schema import Recipe
from sparta.store.layout import StateDir
from sparta.store.records import Response, Vote
from sparta.store.run import Run
from sparta.store.shards import read_shards

needs_vllm = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None,
    reason="vllm is not installed: `make unit` installs its CPU build",
)
ENGINES = ["hf", pytest.param("vllm", marks=needs_vllm)]
BEFORE, AFTER = "2026-11-28T23:58:00", "2026-11-29T00:02:00"

Pools = Callable[[str], dict[str, Any]]
Clock = Callable[[str], None]


@pytest.fixture(autouse=True)
def set_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Sets the clock that runs and templates read, in ISO's spelling; it is before midnight."""

    def to(moment: str) -> None:
        class Set(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> datetime:
                return datetime.fromisoformat(moment).replace(tzinfo=tz)

        for module in ("sparta.store.run", chat_template_utils.__name__):
            monkeypatch.setattr(f"{module}.datetime", Set)

    to(BEFORE)
    return to


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a pool, and the pool, on a template that is yet to be replaced."""
    folder = tmp_path_factory.mktemp("members")
    return folder, thinking_models.pool_on(folder, QWEN3_LIKE)


@pytest.fixture
def pool_on(members: tuple[Path, dict[str, Any]], tmp_path: Path) -> Pools:
    """The section `pool` of a recipe, on a base with the template that is given."""

    def made(template: str) -> dict[str, Any]:
        folder, pool = members
        base = Path(shutil.copytree(folder / "base", tmp_path / "base"))
        (base / "chat_template.jinja").write_text(template)
        return {**pool, "base": str(base)}

    return made


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
            "combats": 8,
            "pool": pool,
            "data": {"train": str(questions)},
            "chat": {"thinking_tokens": 24},
            "generation": {"max_new_tokens": 12, "temperature": 1.0, "top_p": 1.0, "top_k": 0},
            "judging": {"max_new_tokens": 16, "max_missing": 1.0},
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
        (PARTS, ["user"], "expects content as a list of parts, .* leaves out the user turn"),
        (
            WITHOUT_SYSTEM,
            ["system", "user"],
            r"leaves out the system turn, .* \(for example prompt p000002\)",
        ),
        (
            GEMMA_LIKE,
            ["system", "user"],
            r"refuses a prompt with the roles system, user .* \(for example prompt p000002\)",
        ),
    ],
)
def test_a_pool_whose_template_would_not_show_an_instruction_is_refused_before_there_is_a_run(
    tmp_path: Path, pool_on: Pools, template: str, turns: list[str], said: str
) -> None:
    questions = tmp_path / "mixed.jsonl"
    chats = [
        {"messages": [{"role": role, "content": f"{n}"} for n, role in enumerate(row)]}
        for row in (["user"], turns)
    ]
    questions.write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    with pytest.raises(SpartaError, match=f"chat template of base {tmp_path}/base {said}"):
        begin(tmp_path / "state", pool_on(template), data={"train": str(questions)})
    assert list((tmp_path / "state").iterdir()) == []


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_that_goes_on_after_midnight_is_the_run_that_did_not(
    tmp_path: Path, pool_on: Pools, set_clock: Clock, engine: str
) -> None:
    pool = pool_on(LLAMA_LIKE)
    whole, halves = begin(tmp_path / "whole", pool, engine), begin(tmp_path / "halves", pool, engine)
    advance(whole, 1)
    advance(halves, 1, upto="judge")
    close_engine()
    set_clock(AFTER)
    again = begin_or_continue(halves.state, None)
    advance(again, 1)
    close_engine()
    assert read_pairs(again, 1)
    assert manifests(again) == manifests(whole)
    assert len(manifests(again)) == 2


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("thinks", [True, False])
def test_a_pool_that_thinks_is_judged_by_what_it_answers_and_learns_what_it_wrote(
    tmp_path: Path, pool_on: Pools, set_clock: Clock, engine: str, thinks: bool
) -> None:
    chat = {"thinking_tokens": 24, "template_kwargs": {} if thinks else {"enable_thinking": False}}
    run = begin(tmp_path / "state", pool_on(QWEN3_LIKE), engine, chat=chat)
    advance(run, 1)
    halves = begin(tmp_path / "halves", run.recipe.pool.model_dump(), engine, chat=chat)
    advance(halves, 1, upto="judge")
    close_engine()
    set_clock(AFTER)
    advance(begin_or_continue(halves.state, None), 1)
    close_engine()
    assert manifests(halves) == manifests(run)
    rows = read_shards(run.iteration(1).responses, Response).values()
    votes = read_shards(run.iteration(1).votes, Vote).values()
    assert all(
        re.fullmatch("[bc]+", row.text) for row in rows if row.answered and row.finish_reason == "stop"
    )
    assert all(re.fullmatch("[th]*", row.thinking) for row in rows)
    assert {bool(row.thinking) for row in rows} == ({True, False} if thinks else {False})
    assert thinks or all(row.answered and row.new_tokens <= 12 for row in rows)
    assert all(row.text == "" and row.finish_reason == "length" for row in rows if not row.answered)
    for vote in votes:
        assert (vote.score is None) == (not vote.answered)
        assert vote.score is None or re.fullmatch(judging_pattern(False), vote.raw)
        assert thinks or (vote.answered and vote.thinking == "")
    assert {bool(vote.thinking) for vote in votes} == ({True, False} if thinks else {False})
    sampled = {row.key: row.token_ids for row in rows}
    pairs = read_pairs(run, 1)
    assert pairs
    for pair in pairs:
        assert pair.chosen_token_ids == sampled[f"{pair.combat_id}/{pair.models[0]}"]
        assert pair.rejected_token_ids == sampled[f"{pair.combat_id}/{pair.models[1]}"]
    assert run.state.committed() == [0, 1]


@pytest.mark.parametrize("kind", ENGINES)
def test_tags_that_are_special_tokens_are_no_less_seen(tmp_path: Path, kind: str) -> None:
    base = thinking_models.make_base(tmp_path / "base", QWEN3_LIKE, special=True)
    small = {"own_process": False, "cpu_cache_gib": 0.25, "sequences": 16}
    engine = open_engine(settings(kind=kind, context_length=128, vllm=small))
    model = ref("m", base, None)
    engine.expect([model])
    renderer = engine.renderer(model)
    asked = [request(engine, model, f"question {n}", SAMPLED, seed=n) for n in range(8)]
    found = answers(engine, [replace(one, sampling=replace(SAMPLED, max_new_tokens=90)) for one in asked])
    close_engine()
    said = [renderer.split_reply(one.prompt, found[one.key].text) for one in asked]
    assert all(re.fullmatch("[th]*", one.thinking) and re.fullmatch("[bc]*", one.answer) for one in said)
    assert sum(one.thinking != "" for one in said) > 2
    for one in asked:
        before = renderer.up_to_answer(one.prompt, found[one.key].token_ids)
        assert before == found[one.key].token_ids[: len(before)]

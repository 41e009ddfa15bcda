"""The scripted engine: deterministic, readable, and fast to import."""

import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.engine_contract import SAMPLED, answers, labels, ref, request, weighing

from sparta.chat.judge_prompts import GRADING, JudgingMode, judging_instruction
from sparta.chat.renderer import Renderer
from sparta.chat.sft_examples import sft_examples
from sparta.chat.template import Message
from sparta.engines.base import ModelRef, Request, Sampling
from sparta.engines.scripted import ByteTokenizer, ScriptedEngine, skill
from sparta.recipes import engine as recipe_engine

ROOT = Path(__file__).parents[2]
LABELS = tuple("0123456789")
LONG = Sampling(0.7, 0.95, 50, 200)
MODELS = [ref(name, Path("none"), None) for name in ("ada", "bea", "cem", "dov")]


def engine(**scripted: object) -> ScriptedEngine:
    return ScriptedEngine(
        recipe_engine.EngineSettings.model_validate({"kind": "scripted", "scripted": scripted})
    )


def judging(
    made: ScriptedEngine,
    judge: ModelRef,
    response: str,
    mode: JudgingMode = "text",
    working: bool = False,
    seed: int = 0,
) -> Request:
    prompt = made.renderer(judge).judging(
        [Message("user", "what?")],
        response,
        instruction=judging_instruction(mode, working, LABELS),
        max_new_tokens=40,
    )
    return Request(f"{judge.name}/{response}/{seed}", judge, prompt, LONG, seed)


def test_completions_do_not_depend_on_order_or_batch() -> None:
    made = engine()
    asked = [request(made, model, "what?", LONG, seed) for model in MODELS for seed in range(20)]
    once = answers(made, asked)
    assert once == answers(engine(), random.Random(0).sample(asked, len(asked)))
    assert once[asked[5].key] == answers(engine(), [asked[5]])[asked[5].key]
    assert len({done.text for done in once.values()}) == len(asked)
    assert made.loads == 1


def test_answers_end_with_an_end_of_sequence_token_or_at_the_limit() -> None:
    made = engine()
    (whole,) = answers(made, [request(made, MODELS[0], "what?", LONG)]).values()
    assert whole.finish_reason == "stop"
    assert whole.token_ids[:-1] == made.renderer(MODELS[0]).encode(whole.text)
    (cut,) = answers(made, [request(made, MODELS[0], "what?", SAMPLED)]).values()
    assert (cut.finish_reason, len(cut.token_ids)) == ("length", SAMPLED.max_new_tokens)
    assert whole.text.startswith(cut.text)
    (full,) = answers(made, [request(made, MODELS[0], "x" * 5000)]).values()
    assert full.finish_reason == "prompt_too_long"


def test_votes_are_json_and_follow_the_quality_stated() -> None:
    made = engine()
    means = []
    for quality in ("2.00", "9.00"):
        asked = [
            judging(made, MODELS[0], f"scripted answer ab, quality {quality}", seed=seed)
            for seed in range(50)
        ]
        scores = [json.loads(done.text)["score"] for done in answers(made, asked).values()]
        assert all(1 <= score <= 10 for score in scores)
        means.append(sum(scores) / 50)
    assert means[0] + 3 < means[1]


def test_judges_listed_as_unreadable_are_unreadable_in_the_given_share() -> None:
    made = engine(unreadable={"ada": 0.4, "bea": 1.0})
    shares = {}
    for judge in MODELS[:3]:
        done = answers(made, [judging(made, judge, "quality 5.00", seed=seed) for seed in range(200)])
        shares[judge.name] = sum("score" not in one.text for one in done.values()) / 200
    assert shares["ada"] == pytest.approx(0.4, abs=0.12)
    assert (shares["bea"], shares["cem"]) == (1.0, 0.0)


def test_reasoning_comes_first_if_the_prompt_asks_for_it() -> None:
    made = engine()
    one = judging(made, MODELS[0], "quality 5.00", working=True)
    (done,) = answers(made, [one]).values()
    working, vote = done.text.split("\n")
    assert working.endswith("working")
    assert json.loads(vote)
    (stopped,) = answers(made, [replace(one, sampling=replace(LONG, stop=("\n",)))]).values()
    assert (stopped.text, stopped.finish_reason) == (f"{working}\n", "stop")
    (vote_alone,) = answers(made, [replace(one, prefix=stopped.token_ids)]).values()
    assert json.loads(vote_alone.text)


def test_labels_get_probabilities_around_the_quality() -> None:
    made = engine()
    ids = labels(*made.renderer(MODELS[0]).encode("".join(LABELS)))
    means = []
    for quality in ("2.00", "9.00"):
        asked = [
            replace(judging(made, MODELS[0], f"quality {quality}", "expected", seed=seed), labels=ids)
            for seed in range(50)
        ]
        done = answers(made, asked).values()
        assert all(sum(one.label_probs) == pytest.approx(1) and len(one.label_probs) == 10 for one in done)
        means.append(sum(p * i for one in done for i, p in enumerate(one.label_probs)) / 50)
    assert means[0] + 3 < means[1]


def test_a_grading_prompt_gets_a_score() -> None:
    made = engine()
    grades = []
    for quality in ("2.00", "9.00"):
        prompt = made.renderer(MODELS[0]).grading(
            "Is it right?",
            [Message("user", "what?")],
            "scripted answer cd, quality 5.50",
            f"scripted answer ab, quality {quality}",
            GRADING,
            32,
        )
        asked = [Request(str(seed), MODELS[0], prompt, LONG, seed) for seed in range(50)]
        read = [json.loads(done.text)["score"] for done in answers(made, asked).values()]
        grades.append(sum(read) / 50)
    assert grades[0] + 3 < grades[1]


def test_log_likelihoods_follow_from_the_request_alone() -> None:
    made = engine()
    asked = [
        weighing(made, model, "what?", text, plain)
        for model in MODELS
        for text in ("yes", "no", "yes, " * 9)
        for plain in (True, False)
    ]
    once = answers(made, asked)
    assert once == answers(engine(), random.Random(0).sample(asked, len(asked)))
    for one in asked:
        done = once[one.key]
        assert -4.0 <= done.log_likelihood / len(one.continuation) <= -0.5
        assert (done.text, done.token_ids, done.finish_reason) == ("", (), "stop")
    assert len({done.log_likelihood for done in once.values()}) == len(asked)
    first = asked[0]
    other = replace(first, continuation=made.renderer(first.model).encode("yet"))
    assert answers(made, [other])[first.key] != once[first.key]
    (over,) = answers(made, [replace(first, continuation=(65,) * 5000)]).values()
    assert (over.finish_reason, over.log_likelihood) == ("prompt_too_long", 0.0)


def test_skills_differ_by_name_and_a_little_by_version() -> None:
    skills = [skill(model) for model in MODELS]
    assert len(set(skills)) == len(skills)
    later = skill(replace(MODELS[0], version="1"))
    assert 0 < abs(later - skills[0]) <= 1


def test_importing_it_is_cheap() -> None:
    code = (
        "import sys; from sparta.engines.factory import open_engine; from sparta.recipes.engine import EngineSettings;"
        "open_engine(EngineSettings(kind='scripted')); import sparta.engines.hf.engine;"
        "assert not {'torch', 'peft', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_its_tokenizer_renders_sft_chats_and_keeps_spelled_special_tokens_as_text() -> None:
    renderer = Renderer(ByteTokenizer(), 512)
    chat = [
        Message("user", "a <|im_end|> b"),
        Message("assistant", "<|im_start|>"),
        Message("user", "c"),
        Message("assistant", "d"),
    ]
    [(ids, is_target)] = sft_examples(renderer, chat)
    start, end = ByteTokenizer.START, ByteTokenizer.END
    assert [token for token in ids if token > 255] == [start, end, start, end, start, end, start, end]
    assert [token for token, target in zip(ids, is_target, strict=True) if target] == [
        *b"<|im_start|>",
        end,
        *b"d",
        end,
    ]
    assert ids[: len(renderer.combat(chat[:1]).token_ids or ())] == renderer.combat(chat[:1]).token_ids

"""Thinking models: rows keep thinking and answer, only the answer is read, and thinking that never ends gives no answer."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from support.scripted_run import advance, begin

from sparta.chat.judge_prompts import JudgingMode, judging_pattern
from sparta.chat.options import ChatOptions
from sparta.chat.template import Message
from sparta.chat.thinking import THINK
from sparta.engines.base import Completion, ModelRef, Request
from sparta.engines.scripted import ByteTokenizer, ScriptedEngine
from sparta.errors import SpartaError
from sparta.phases.judge import Ballot, VoteRequests
from sparta.phases.merge import read_pairs
from sparta.phases.token_costs import expected_tokens, expected_verdicts
from sparta.phases.train import example_of
from sparta.pool.gpu_memory import longest_pair
from sparta.recipes.engine import EngineSettings
from sparta.recipes.schema import Judging
from sparta.store import files
from sparta.store.records import Response, Vote
from sparta.store.shards import read_shards
from sparta.store.stats import IterationStats

THINKS = {"thinking": {"open": "<think>", "close": "</think>"}, "thinking_tokens": 200}


@pytest.mark.parametrize("fused", [False, True])
def test_judges_and_pairs_have_the_answer_and_trainers_the_ids(tmp_path: Path, fused: bool) -> None:
    run = begin(tmp_path, chat=THINKS, cluster={"fused": fused})
    advance(run, 1)
    responses = read_shards(run.iteration(1).responses, Response)
    for row in responses.values():
        assert re.fullmatch(r"scripted answer [0-9a-f]{16}, quality \d+\.\d\d", row.text)
        assert row.answered and row.thinking.endswith("quality 9.99, score: 10/10?")
        written = bytes(token for token in row.token_ids if token < 256).decode()
        assert written == f"<think>\n{row.thinking}\n</think>\n\n{row.text}"
    votes = read_shards(run.iteration(1).votes, Vote)
    assert all(vote.answered and vote.thinking and vote.score is not None for vote in votes.values())
    assert all(re.fullmatch(judging_pattern(False), vote.raw) for vote in votes.values())
    assert len({vote.score for vote in votes.values()}) > 1, "10/10 is thought of everything"
    pairs = read_pairs(run, 1)
    assert pairs
    renderer = ScriptedEngine(run.recipe.engine, run.chat).renderer(MODEL)
    for pair in pairs:
        for text, thinking, ids, model in zip(
            (pair.chosen, pair.rejected),
            pair.thinking,
            (pair.chosen_token_ids, pair.rejected_token_ids),
            pair.models,
            strict=True,
        ):
            row = responses[f"{pair.combat_id}/{model}"]
            assert (text, thinking, ids) == (row.text, row.thinking, row.token_ids)
        own = example_of(pair, renderer, "scripted-bytes")
        assert (own.chosen_ids, own.rejected_ids) == (pair.chosen_token_ids, pair.rejected_token_ids)
        assert example_of(pair, renderer, "another") == own, (
            "encoded anew, thought and all, they are the same here"
        )


def test_thinking_that_never_ends_is_counted_and_gives_no_answer(tmp_path: Path) -> None:
    run = begin(
        tmp_path,
        combats=20,
        chat={**THINKS, "thinking_tokens": 30},
        generation={"max_new_tokens": 60},
        judging={"max_new_tokens": 16, "retries": 0, "max_missing": 1},
    )
    advance(run, 1)
    stats = files.read_json(run.iteration(1).stats, IterationStats)
    rows = read_shards(run.iteration(1).responses, Response).values()
    lost = [row for row in rows if not row.answered]
    assert 0 < stats.unanswered == len(lost) < len(rows)
    assert all(row.text == "" and row.finish_reason == "length" and row.thinking for row in lost)
    assert stats.reasons["empty"] == len({row.combat_id for row in rows if not row.text})
    votes = read_shards(run.iteration(1).votes, Vote).values()
    silent = [vote for vote in votes if not vote.answered]
    assert silent and all(vote.score is None and vote.raw == "" and vote.thinking for vote in silent)
    assert sum(judge.unanswered for judge in stats.judges.values()) == len(silent)


MODEL = ModelRef("judge", "none", None, "0")
CHAT = ChatOptions(thinking=THINK, thinking_tokens=50)


def ballot(response: str = "quality 5.00") -> Ballot:
    return Ballot("c", "contestant", MODEL, (Message("user", "?"),), response)


def dialog(mode: JudgingMode = "text", **judging: object) -> tuple[VoteRequests, Request]:
    """The dialog about one ballot, and its first request."""
    engine = ScriptedEngine(EngineSettings(kind="scripted"), CHAT)
    jury = VoteRequests(engine, Judging.model_validate({"mode": mode, **judging}), (0,))
    first = jury.ask(ballot())
    assert isinstance(first, Request)
    return jury, first


def wrote(request: Request, text: str, cut: bool = False) -> Completion:
    ids = tuple(ByteTokenizer().encode(text)) + (() if cut else (ByteTokenizer.END,))
    return Completion(request.key, text, ids, 1, "length" if cut else "stop", 0.0)


def test_a_judge_thinks_unconstrained_and_only_its_answer_is_constrained() -> None:
    jury, first = dialog(max_new_tokens=20)
    assert (first.pattern, first.prefix, first.sampling.max_new_tokens) == ("", (), 70)
    second = jury.on_reply(wrote(first, "<think>\nIs it 2/10?\n</think>\n\nI would say 7"))
    assert isinstance(second, Request)
    assert bytes(second.prefix).decode() == "<think>\nIs it 2/10?\n</think>\n\n"
    assert (second.pattern, second.sampling.max_new_tokens) == (judging_pattern(False), 20)
    assert second.seed != first.seed
    vote = jury.on_reply(wrote(second, '{"score": 7}'))
    assert isinstance(vote, Vote)
    assert (vote.score, vote.raw, vote.thinking, vote.tries) == (7, '{"score": 7}', "Is it 2/10?", 1)


def test_an_answer_that_matches_the_pattern_is_not_requested_again() -> None:
    jury, first = dialog()
    vote = jury.on_reply(wrote(first, '<think>10/10</think>{"score": 3}'))
    assert isinstance(vote, Vote) and (vote.score, vote.thinking) == (3, "10/10")


@pytest.mark.parametrize("constrained", [True, False])
def test_a_thought_that_is_cut_is_a_missing_vote(constrained: bool) -> None:
    jury, first = dialog(constrained=constrained, retries=1)
    again = jury.on_reply(wrote(first, "<think>Is this a 2/10? It reads well, so let me", cut=True))
    assert isinstance(again, Request) and again.seed != first.seed and again.prefix == ()
    vote = jury.on_reply(wrote(again, "<think>Is this a 2/10? It reads well, so let me", cut=True))
    assert isinstance(vote, Vote)
    assert (vote.score, vote.raw, vote.answered, vote.tries) == (None, "", False, 2)


def test_free_text_is_parsed_after_the_thinking() -> None:
    jury, first = dialog(constrained=False)
    assert first.pattern == ""
    vote = jury.on_reply(wrote(first, "Is it a 2/10?</think>\nScore: 8"))
    assert isinstance(vote, Vote) and (vote.score, vote.raw) == (8, "Score: 8")


def test_labels_come_after_an_empty_thought() -> None:
    empty = "<think>\n\n</think>\n\n"
    jury, first = dialog("expected")
    assert first.labels and bytes(first.prefix).decode() == empty
    jury, first = dialog("expected", working=True)
    assert not first.labels and bytes(first.prefix).decode() == empty
    second = jury.on_reply(wrote(first, "so 11\n", cut=True))
    assert isinstance(second, Request) and second.labels
    assert bytes(second.prefix).decode() == f"{empty}so 11\n"


def test_a_judge_that_must_not_think_is_constrained_at_once() -> None:
    engine = ScriptedEngine(EngineSettings(kind="scripted"), replace(CHAT, thinking="auto"))
    first = VoteRequests(engine, Judging(), (0,)).ask(ballot())
    assert isinstance(first, Request)
    assert (first.pattern, first.prefix, first.sampling.max_new_tokens) == (judging_pattern(False), (), 32)


def test_the_error_about_missing_votes_says_if_thinking_never_ended(tmp_path: Path) -> None:
    run = begin(tmp_path, chat={**THINKS, "thinking_tokens": 5}, judging={"max_new_tokens": 16, "retries": 0})
    with pytest.raises(SpartaError) as caught:
        advance(run, 1)
    assert re.search(
        r"judge model\d could not be read .*; it wrote, for example, '(hm, |quali).*'; in \d+ of them its thinking never ended within "
        r"chat\.thinking_tokens, 5, and judging\.max_new_tokens, 16\.",
        str(caught.value),
    )


def test_estimates_include_thinking_before_anything_is_measured(tmp_path: Path) -> None:
    run = begin(tmp_path, chat=THINKS, generation={"max_new_tokens": 100}, judging={"max_new_tokens": 30})
    assert expected_tokens(run, 1) == dict.fromkeys(run.models, 150.0)
    assert expected_verdicts(run, 1) == dict.fromkeys(run.models, 130.0)
    assert longest_pair(run) >= 300
    told = run.recipe.model_copy(
        update={"chat": run.recipe.chat.model_copy(update={"template_kwargs": {"enable_thinking": False}})}
    )
    run.recipe = told
    assert expected_tokens(run, 1) == dict.fromkeys(run.models, 50.0)
    assert longest_pair(run) < 300

"""The engine on a misbehaving endpoint: a real HTTP server with scripted answers."""

import logging
import math
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from support.api_proxy import ADA, BARE, Proxy, Reply, answer, asked, complete, error
from support.engine_contract import SAMPLED, ref, request, settings
from support.scripted_run import DEADLINE, wait_until

from sparta.chat.template import Message
from sparta.engines.api import call_cache, endpoint
from sparta.engines.api.call_cache import Call, Calls, spent_in
from sparta.engines.api.engine import ApiEngine
from sparta.engines.base import Inbox, Label, Request
from sparta.engines.label_tokens import check_labels
from sparta.errors import SpartaError
from sparta.recipes.load import load
from sparta.recipes.schema import Judging

ROOT = Path(__file__).parents[3]
SECRET = "sk-very-secret-5150"


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    made = Proxy()
    yield made
    made.die()


@pytest.fixture
def make(proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ApiEngine]]:
    """Makes engines on the proxy that share one call cache."""
    monkeypatch.setattr(endpoint, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(endpoint, "LONGEST_WAIT", 0.1)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    made: list[ApiEngine] = []

    def _make(**api: object) -> ApiEngine:
        api = {"url": proxy.url, "retries": 2, "concurrency": 4, "timeout": DEADLINE, **api}
        made.append(ApiEngine(settings(kind="api", api=api), tmp_path / "calls"))
        return made[-1]

    yield _make
    for engine in made:
        engine.close()
        engine.close()


def refusal(engine: ApiEngine, requests: Sequence[Request] | None = None) -> str:
    with pytest.raises(SpartaError) as caught:
        complete(engine, asked(engine) if requests is None else requests)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_protocols_own_fields_are_sent_and_no_others(
    proxy: Proxy, make: Callable[..., ApiEngine]
) -> None:
    engine = make(models={"bare": "vendor-1"})
    [done] = complete(engine, [replace(asked(engine)[0], pattern="a+")])
    assert (done.text, done.prompt_tokens, done.finish_reason, done.token_ids) == (
        "to question 0",
        10,
        "stop",
        (),
    )
    assert proxy.chats[0].body == {
        "model": "vendor-1",
        "messages": [{"role": "user", "content": "question 0"}],
        "temperature": 0.7,
        "top_p": 0.95,
        "max_tokens": 12,
        "seed": 0,
    }
    assert (engine.loads, engine.load_seconds, engine.tokenizer_fingerprint(BARE)) == (0, 0.0, "")


def test_the_limit_goes_by_the_name_that_newer_endpoints_take_and_answers_are_kept_by_either(
    proxy: Proxy, make: Callable[..., ApiEngine]
) -> None:
    engine = make(max_completion_tokens=True)
    overflow = "maximum context length is 256 tokens, you requested 262 (250 + 12)"
    proxy.replies += [error(400, overflow), answer("in sho", "length")]
    complete(engine, asked(engine))
    first, second = (chat.body for chat in proxy.chats)
    assert (first.pop("max_completion_tokens"), second.pop("max_completion_tokens")) == (12, 6)
    assert "max_tokens" not in first and first == second
    complete(make(), asked(engine))
    assert len(proxy.chats) == 2, "what was asked under one name is not asked under the other"


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (
            False,
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        ),
        (True, "Unrecognized request argument supplied: max_completion_tokens"),
    ],
)
def test_an_endpoint_that_takes_the_other_name_is_asked_once_and_the_key_is_named(
    named: bool, message: str, proxy: Proxy, make: Callable[..., ApiEngine]
) -> None:
    engine = make(max_completion_tokens=named)
    proxy.always = lambda _: error(400, message)
    other = str(not named).lower()
    assert f"set engine.api.max_completion_tokens to {other}" in refusal(engine, asked(engine)[:1])
    assert len(proxy.chats) == 1


def test_as_many_requests_are_in_flight_as_the_recipe_says(
    proxy: Proxy, make: Callable[..., ApiEngine]
) -> None:
    proxy.until = lambda number: proxy.most_under_way >= 3
    engine = make(concurrency=3)
    assert len(complete(engine, asked(engine, 12))) == 12
    assert proxy.most_under_way == 3


def test_follow_ups_are_taken_next_and_completions_come_at_once(
    proxy: Proxy, make: Callable[..., ApiEngine]
) -> None:
    engine = make(concurrency=2)
    inbox = Inbox(asked(engine, 8))
    followed = False
    for _ in engine.run(inbox):
        if not followed:
            inbox.put(request(engine, BARE, "follow-up", SAMPLED))
            followed = True
    order = [seen.body["messages"][0]["content"] for seen in proxy.chats]
    assert len(order) == 9
    assert order.index("follow-up") < 5


def test_an_answered_request_is_never_sent_again(
    proxy: Proxy, make: Callable[..., ApiEngine], tmp_path: Path
) -> None:
    first = make()
    once = complete(first, asked(first, 6))
    assert sorted(complete(first, asked(first, 6)), key=lambda done: done.key) == sorted(
        once, key=lambda done: done.key
    )
    again = make()
    assert len(complete(again, asked(again, 7))) == 7
    assert len(proxy.chats) == 7
    # Other weights, another seed, another temperature: other questions.
    [one] = asked(again)
    others = [
        replace(one, model=replace(BARE, version="1")),
        replace(one, seed=9),
        replace(one, sampling=replace(SAMPLED, temperature=0.6)),
    ]
    complete(again, others)
    assert len(proxy.chats) == 10
    spent = spent_in(tmp_path / "calls", recipe_api(input_price=2.0, output_price=4.0))
    assert (spent.calls, spent.prompt_tokens, spent.new_tokens) == (10, 100, 50)
    assert spent.cost == pytest.approx((100 * 2 + 50 * 4) / 1e6)


def recipe_api(**values: object) -> Any:
    return settings(api=values).api


def test_equal_requests_in_flight_are_paid_once(proxy: Proxy, make: Callable[..., ApiEngine]) -> None:
    # The other one is sent last: when both are seen, all three equal ones are under way.
    proxy.until = lambda number: len(proxy.seen) >= 2
    engine = make()
    one, other = asked(engine, 2)
    done = complete(engine, [*(replace(one, key=f"same {i}") for i in range(3)), other])
    assert [len(proxy.chats), len(done), len({each.text for each in done})] == [2, 4, 2]


@pytest.mark.parametrize(
    "reply",
    [
        error(429, "slow down"),
        error(500, "oops"),
        error(503, "busy"),
        Reply(502, "<html>bad gateway</html>"),
        Reply(body='{"choices": [{"message"'),
        Reply(body="<html>hello</html>", headers={"content-type": "text/html"}),
        Reply(body={"choices": []}),
        answer("a", "tool_calls"),
        answer("half a", "content_filter"),
    ],
    ids=["429", "500", "503", "502", "torn", "html", "no choice", "tool call", "filtered"],
)
def test_a_temporary_failure_is_retried(proxy: Proxy, make: Callable[..., ApiEngine], reply: Reply) -> None:
    engine = make()
    proxy.replies.extend([reply, reply])
    [done] = complete(engine, asked(engine))
    assert (done.text, len(proxy.chats)) == ("to question 0", 3)


def test_a_timeout_is_retried(proxy: Proxy, make: Callable[..., ApiEngine]) -> None:
    # On a busy machine an answer may be late too, and is then asked for once more.
    engine = make(timeout=0.5, retries=1000)
    proxy.replies.extend([Reply(never=True)] * 2)
    [done] = complete(engine, asked(engine))
    assert done.text == "to question 0"
    assert len(proxy.chats) >= 3


@pytest.mark.parametrize("finish_reason", ["stop", "length"])
def test_an_empty_text_is_an_answer(proxy: Proxy, make: Callable[..., ApiEngine], finish_reason: str) -> None:
    proxy.replies.append(answer(None, finish_reason))
    engine = make()
    [done] = complete(engine, asked(engine))
    assert (done.text, done.finish_reason, done.new_tokens) == ("", finish_reason, 5)
    [again] = complete(engine, asked(engine))
    assert (again.text, again.finish_reason, len(proxy.chats)) == ("", finish_reason, 1)


def test_an_answer_that_is_always_filtered_is_empty_and_paid_for(
    proxy: Proxy, make: Callable[..., ApiEngine], tmp_path: Path
) -> None:
    engine = make()
    proxy.replies.extend([answer(None, "content_filter")] * 3)
    [done] = complete(engine, asked(engine))
    assert (done.text, done.finish_reason, done.prompt_tokens, done.new_tokens) == ("", "stop", 10, 5)
    assert len(proxy.chats) == 3
    spent = spent_in(tmp_path / "calls", recipe_api())
    assert (spent.calls, spent.prompt_tokens, spent.new_tokens) == (3, 30, 15)
    complete(make(), asked(engine))
    assert len(proxy.chats) == 3


def test_a_filtered_prompt_does_not_stop_the_run(proxy: Proxy, make: Callable[..., ApiEngine]) -> None:
    proxy.replies.append(error(400, "The response was filtered", "content_filter"))
    engine = make()
    [done] = complete(engine, asked(engine))
    assert (done.text, done.finish_reason, len(proxy.chats)) == ("", "stop", 1)


def test_an_invalid_answer_that_is_charged_counts_as_spending_and_is_never_reused(
    proxy: Proxy, make: Callable[..., ApiEngine], tmp_path: Path
) -> None:
    charged = {"usage": {"prompt_tokens": 10, "completion_tokens": 5}}
    proxy.replies += [Reply(body={"choices": [], **charged}), Reply(body={"choices": "none", **charged})]
    proxy.replies += [Reply(body="{"), answer("x", "tool_calls")]
    engine = make(retries=4)
    [done] = complete(engine, asked(engine))
    assert (done.text, done.new_tokens, len(proxy.chats)) == ("to question 0", 5, 5)
    spent = spent_in(tmp_path / "calls", recipe_api())
    assert (spent.calls, spent.prompt_tokens, spent.new_tokens) == (4, 40, 20)
    [again] = complete(make(), asked(engine))
    assert (again.text, len(proxy.chats)) == ("to question 0", 5)


def test_the_budget_is_checked_before_every_retry(proxy: Proxy, make: Callable[..., ApiEngine]) -> None:
    proxy.always = lambda _: answer("x", "tool_calls")
    engine = make(input_price=1000.0, max_cost=0.025, retries=1000)  # 0.01 a try
    assert "3 calls have cost 0.03, and engine.api.max_cost allows 0.025" in refusal(engine)
    assert len(proxy.chats) == 3


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_obeyed(proxy: Proxy, make: Callable[..., ApiEngine], form: str) -> None:
    engine = make(concurrency=2)
    began = time.perf_counter()
    wait = "1" if form == "seconds" else formatdate(math.ceil(time.time()) + 1, usegmt=True)
    proxy.replies.append(error(429, "slow down", **{"retry-after": wait}))
    assert len(complete(engine, asked(engine, 6))) == 6
    assert time.perf_counter() - began >= 0.95
    assert len(proxy.chats) == 7


def test_after_the_last_try_one_sentence_says_what_happened(
    proxy: Proxy, make: Callable[..., ApiEngine]
) -> None:
    engine = make()
    for reply, words in [
        (error(500, "oops"), "answered HTTP 500: oops"),
        (error(429, "slow down"), "HTTP 429: slow down: lower engine.api.concurrency"),
        (Reply(body="{"), "answered with an invalid chat completion"),
        (answer("", "tool_calls"), "finish_reason tool_calls"),
    ]:
        proxy.always = lambda _, reply=reply: reply
        said = refusal(engine)
        assert words in said
        assert f"{proxy.url}, asked 3 times for bare" in said
        assert "run the same command again" in said
    assert len(proxy.chats) == 12


def test_an_endpoint_that_never_answers_ends_in_an_error(
    proxy: Proxy, make: Callable[..., ApiEngine]
) -> None:
    proxy.always = lambda _: Reply(never=True)
    said = refusal(make(timeout=0.3))
    assert f"{proxy.url}, asked 3 times for bare, gave no answer in 0.3 seconds" in said


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (error(401, "bad key"), "valid key into the environment variable OPENAI_API_KEY"),
        (error(403, "not for you"), "a key with this permission into OPENAI_API_KEY"),
        (error(404, "no such model"), "name of the model in engine.api.models"),
        (error(400, "seed is not supported"), "HTTP 400: seed is not supported: change the setting"),
        (error(429, "no money left", "insufficient_quota"), "check the quota of the account"),
        (error(429, "tomorrow", **{"retry-after": "86400"}), "HTTP 429: tomorrow"),
    ],
    ids=["401", "403", "404", "400", "quota", "long wait"],
)
def test_a_permanent_failure_is_not_retried(
    proxy: Proxy, make: Callable[..., ApiEngine], reply: Reply, words: str
) -> None:
    proxy.always = lambda _: reply
    assert words in refusal(make())
    assert len(proxy.chats) == 1


def test_a_prompt_that_the_context_does_not_hold_is_no_error(
    proxy: Proxy, make: Callable[..., ApiEngine]
) -> None:
    engine = make()
    for message, tries in [
        ("This model's maximum context length is 256 tokens. However, your prompt contains 257 tokens", 1),
        ("maximum context length is 256 tokens, you requested 312 (300 + 12)", 1),
        ("your prompt contains at least 257 input tokens, too long even without any output tokens", 1),
        ("prompt is too long: 257 tokens > 256 maximum", 1),
        # Whether a shorter answer would fit, it does not say.
        ("Please shorten it", 2),
    ]:
        reply = error(400, message, "context_length_exceeded")
        proxy.always = lambda _, reply=reply: reply
        before = len(proxy.chats)
        [done] = complete(engine, asked(engine))
        assert (done.text, done.finish_reason, len(proxy.chats) - before) == ("", "prompt_too_long", tries)


@pytest.mark.parametrize(
    ("message", "left"),
    [
        (
            "maximum context length is 256 tokens. However, you requested 262 tokens (250 in the messages, 12 in the completion)",
            6,
        ),
        ("maximum context length is 256 tokens, you requested 262 (250 + 12)", 6),
        (
            "'max_tokens' is too large: 12. This model's maximum context length is 256 tokens and your request has 250 input tokens (12 > 6).",
            6,
        ),
        (
            "max_tokens is too large: 12. This model supports at most 7 completion tokens, whereas you provided 12.",
            7,
        ),
        (
            "input length and `max_tokens` exceed context limit: 250 + 12 > 256, decrease input length or `max_tokens`",
            6,
        ),
        (
            "`inputs` tokens + `max_new_tokens` must be <= 256. Given: 250 `inputs` tokens and 12 `max_new_tokens`",
            6,
        ),
        (
            "maximum context length is 256 tokens. However, you requested 12 output tokens and your prompt contains at least 245 input tokens",
            None,
        ),
        ("'max_tokens' is too large", None),
    ],
    ids=["messages", "sum", "too large", "output", "limit", "inputs", "at least", "no number"],
)
def test_if_only_the_prompt_fits_a_shorter_answer_is_requested(
    proxy: Proxy, make: Callable[..., ApiEngine], message: str, left: int | None
) -> None:
    engine = make()
    proxy.replies += [error(400, message), answer("in sho", "length")]
    [done] = complete(engine, asked(engine))
    assert (done.text, done.finish_reason) == ("in sho", "length")
    first, second = (chat.body for chat in proxy.chats)
    assert first.pop("max_tokens") == 12
    assert second.pop("max_tokens", None) == left
    assert first == second
    # It answers what was asked, and is not asked for again.
    complete(make(), asked(engine))
    assert len(proxy.chats) == 2


def test_labels_need_one_token_and_are_not_asked_for_without_a_limit(
    proxy: Proxy, make: Callable[..., ApiEngine]
) -> None:
    engine = make()
    proxy.always = lambda _: error(400, "'max_tokens' is too large")
    [done] = complete(engine, [replace(asked(engine)[0], labels=(Label("0", None), Label("1", None)))])
    assert (done.finish_reason, len(proxy.chats)) == ("prompt_too_long", 1)


def test_a_dead_endpoint_ends_the_run_and_a_living_one_continues_it(
    proxy: Proxy, make: Callable[..., ApiEngine], tmp_path: Path
) -> None:
    engine = make()
    done = []
    with pytest.raises(
        SpartaError, match=r"could not be reached .*check that it runs .*run the same command again"
    ):
        for completion in engine.run(Inbox(asked(engine, 30))):
            done.append(completion.key)
            if len(done) == 5:
                proxy.die()
    assert 5 <= len(done) < 30
    other = Proxy()
    again = make(url=other.url)
    assert len(complete(again, asked(again, 30))) == 30
    assert spent_in(tmp_path / "calls", recipe_api()).calls == 30
    assert len(other.chats) <= 30 - len(done)
    assert len(proxy.chats) + len(other.chats) <= 30 + 4
    other.die()


def test_a_killed_process_pays_nothing_twice(
    proxy: Proxy, make: Callable[..., ApiEngine], tmp_path: Path
) -> None:
    # 26 are answered; the 27th is asked when one of the first 26 is kept, and so on: when all 30 are seen, 26 are kept.
    proxy.until = lambda number: number <= 26
    code = f"""
        import sys; sys.path.insert(0, {str(ROOT / "tests")!r})
        from pathlib import Path
        from sparta.engines.api.engine import ApiEngine
        from support.api_proxy import asked, complete
        from support.engine_contract import settings
        api = dict(url={proxy.url!r}, concurrency=4)
        engine = ApiEngine(settings(kind="api", api=api), Path({str(tmp_path / "calls")!r}))
        complete(engine, asked(engine, 200))
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT)
    wait_until(lambda: len(proxy.chats) == 30 or process.poll() is not None)
    process.kill()
    process.wait()
    kept, sent = spent_in(tmp_path / "calls", recipe_api()).calls, len(proxy.chats)
    assert (kept, sent) == (26, 30)
    [file] = (tmp_path / "calls").iterdir()
    with file.open("ab") as rows:
        rows.write(b'{"key":"torn')
    proxy.until = lambda number: True
    engine = make()
    assert len(complete(engine, asked(engine, 200))) == 200
    assert len(proxy.chats) == sent + 200 - kept


def test_at_the_budget_the_run_stops_and_continues_when_it_is_raised(
    proxy: Proxy, make: Callable[..., ApiEngine], tmp_path: Path
) -> None:
    prices = {"input_price": 1000.0, "output_price": 1000.0}  # 0.015 a call
    engine = make(**prices, max_cost=0.15, concurrency=2)
    done = []
    with pytest.raises(
        SpartaError, match=r"calls have cost 0\.1\d+, and engine\.api\.max_cost allows 0\.15: raise it"
    ):
        done += [completion.key for completion in engine.run(Inbox(asked(engine, 20)))]
    calls = spent_in(tmp_path / "calls", recipe_api(**prices)).calls
    assert 10 <= calls <= 11
    assert calls == len(proxy.chats)
    assert "max_cost allows 0.15" in refusal(make(**prices, max_cost=0.15), asked(engine, 20))
    assert len(proxy.chats) == calls
    assert len(complete(make(**prices, max_cost=0.5), asked(engine, 20))) == 20
    assert len(proxy.chats) == 20


def test_requests_in_flight_when_the_budget_is_reached_are_finished_and_yielded(
    proxy: Proxy, make: Callable[..., ApiEngine]
) -> None:
    proxy.until = lambda number: proxy.most_under_way >= 4
    engine = make(input_price=1000.0, max_cost=0.005, concurrency=4)
    done = []
    with pytest.raises(SpartaError, match="max_cost"):
        for completion in engine.run(Inbox(asked(engine, 20))):
            done.append(completion.key)
    assert len(done) == len(proxy.chats) == 4


def test_other_processes_spending_counts(
    proxy: Proxy, make: Callable[..., ApiEngine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_cache, "RESCAN_SECONDS", 0.0)
    engine = make(input_price=1000.0, max_cost=0.1, concurrency=1)
    [one] = complete(engine, asked(engine))
    other = make(input_price=1000.0, concurrency=1)
    complete(other, asked(other, 12))
    assert one.text == "to question 0"
    assert "12 calls have cost 0.12" in refusal(engine, asked(engine, 13))
    assert len(proxy.chats) == 12


def test_other_processes_answers_are_read_before_any_request_is_sent(
    proxy: Proxy, make: Callable[..., ApiEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_cache, "RESCAN_SECONDS", 1e6)
    first = make()
    complete(first, asked(first, 6))
    readers: list[str] = []
    decode = call_cache.decoder(Call).decode

    class Watched:
        def decode(self, line: bytes) -> Call:
            readers.append(threading.current_thread().name)
            return decode(line)

    again = make()
    monkeypatch.setattr(call_cache, "decoder", lambda of: Watched())
    [requests] = [asked(again, 6)]
    run = again.run(Inbox(requests))
    assert next(run).text.startswith("to question")
    assert readers[:6] == [threading.current_thread().name] * 6
    assert len(list(run)) == 5
    # One row for each answer that is given back, and no folder read again, is what the event loop reads.
    assert readers[6:] == ["endpoint"] * 6
    assert len(proxy.chats) == 6


def test_an_invalid_line_is_named(make: Callable[..., ApiEngine], tmp_path: Path) -> None:
    engine = make()
    complete(engine, asked(engine, 2))
    [file] = (tmp_path / "calls").iterdir()
    file.write_bytes(file.read_bytes().replace(b'"stop"', b'"stopped"', 1))
    with pytest.raises(SpartaError, match=rf"{file.name}, line 1 is not a valid call .*delete that line"):
        Calls(tmp_path / "calls", recipe_api()).spent()


def test_without_a_folder_nothing_is_cached_but_spending_is_counted(proxy: Proxy) -> None:
    engine = ApiEngine(
        settings(kind="api", api={"url": proxy.url, "input_price": 1e3, "max_cost": 0.02, "concurrency": 1}),
        None,
    )
    assert len(complete(engine, asked(engine))) == len(complete(engine, asked(engine))) == 1
    assert len(proxy.chats) == 2
    assert "2 calls have cost 0.02" in refusal(engine)
    engine.close()


def test_a_public_endpoint_needs_a_key_and_a_private_server_does_not(
    proxy: Proxy, make: Callable[..., ApiEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        SpartaError, match=r"https://api\.vendor\.com/v1 needs a key, but the .*variable VENDOR_KEY is empty"
    ):
        make(url="https://api.vendor.com/v1", key_variable="VENDOR_KEY").expect([BARE])
    engine = make()
    engine.expect([BARE])
    complete(engine, asked(engine))
    monkeypatch.setenv("VENDOR_KEY", f"{SECRET}\n")
    engine = make(key_variable="VENDOR_KEY")
    complete(engine, [replace(asked(engine)[0], seed=5)])
    assert [seen.authorization for seen in proxy.chats] == ["Bearer none", f"Bearer {SECRET}"]
    monkeypatch.setenv("VENDOR_KEY", f"two {SECRET}s")
    with pytest.raises(SpartaError, match="VENDOR_KEY does not hold a valid key") as caught:
        engine.expect([BARE])
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("host", ["api.vendor.com", "node07", "8.8.8.8", "127.0.0.1.example.com"])
def test_a_key_is_never_sent_over_a_public_network_unencrypted(
    make: Callable[..., ApiEngine], monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    url = f"http://{host}:8000/v1"
    make(url=url).expect([BARE])
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    for refused in (lambda: make(url=url).expect([BARE]), lambda: complete(make(url=url), asked(make()))):
        with pytest.raises(
            SpartaError,
            match=rf"the key in the .* OPENAI_API_KEY would be sent to {url} unencrypted: use https",
        ) as caught:
            refused()
        assert SECRET not in str(caught.value)
    make(url=url, key_variable="NO_KEY").expect([BARE])
    make(url=url.replace("http:", "https:")).expect([BARE])


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "10.1.2.3", "192.168.0.9", "172.16.5.4"])
def test_a_key_may_go_to_this_machine_and_to_a_private_address(
    make: Callable[..., ApiEngine], monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    make(url=f"http://{host}:8000/v1").expect([BARE])


def test_labels_are_checked_with_the_tokenizer_of_the_base_which_must_be_here(
    make: Callable[..., ApiEngine], tiny_base: Path
) -> None:
    engine, here = make(), ref("tiny", tiny_base, None)
    short = Judging(mode="expected", labels=("1", "2"))
    check_labels(engine, [here], short)
    long = Judging(mode="expected", labels=("<|alpha|>", "<|omega|>"))
    with pytest.raises(SpartaError, match=rf"base {tiny_base}: judging label '<\|alpha\|>' is not one token"):
        check_labels(engine, [here], long)
    with pytest.raises(SpartaError, match=r"^base some/base is not a folder with a config\.json"):
        check_labels(engine, [here, BARE], short)
    check_labels(engine, [BARE], Judging())


def test_a_key_is_never_shown(
    proxy: Proxy,
    make: Callable[..., ApiEngine],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    engine = make()
    complete(engine, asked(engine))
    told: list[str] = []
    for status in (401, 403, 404, 400, 500, 200):
        proxy.always = lambda seen, status=status: Reply(status, {"error": {"message": f"{SECRET}"}})
        with pytest.raises(SpartaError) as caught:
            complete(engine, [replace(asked(engine)[0], seed=status)])
        told += traceback.format_exception(caught.value)
    for margin in (60, 70, 200, 210, 220):
        proxy.always = lambda seen, margin=margin: Reply(body=f"<html>{'x' * margin}{SECRET}")
        told.append(refusal(engine, [replace(asked(engine)[0], seed=margin)]))
    proxy.die()
    told.append(refusal(engine, [replace(asked(engine)[0], seed=4)]))
    told += [repr(engine), repr(vars(engine)), caplog.text]
    told += [file.read_text() for file in (tmp_path / "calls").iterdir()]
    assert proxy.seen
    for text in told:
        assert SECRET[:8] not in text
    assert "HTTP 401: ***" in "".join(told)


def test_an_address_that_would_give_a_secret_away_is_refused(tmp_path: Path) -> None:
    for url in ("https://user:SECRET@host/v1", "https://host/v1?key=SECRET"):
        with pytest.raises(SpartaError, match=r"keys come from the variable in key_variable") as caught:
            load("toy", [f"engine.api.url={url}"])
        assert "SECRET" not in str(caught.value)
    with pytest.raises(SpartaError, match="begins with http"):
        load("toy", ["engine.api.url=host:8000/v1"])


def test_a_request_for_a_log_likelihood_is_refused(proxy: Proxy, make: Callable[..., ApiEngine]) -> None:
    engine = make()
    said = refusal(engine, [replace(one, continuation=(1, 2)) for one in asked(engine, 3)])
    assert "cannot score the log-likelihood" in said and "use the engines hf or vllm" in said
    with pytest.raises(SpartaError, match=r"set evaluation\.chat_template to true"):
        engine.renderer(BARE).plain([Message("user", "what?")])
    assert not proxy.seen


def test_an_adapter_that_the_endpoint_cannot_serve_is_refused(make: Callable[..., ApiEngine]) -> None:
    with pytest.raises(SpartaError, match=r"model ada: .*adapters/ada: set engine\.api\.load_adapters"):
        make().expect([BARE, ADA])
    make(load_adapters=True).expect([BARE, ADA])


def test_an_adapter_under_a_fixed_name_must_not_be_trained(
    proxy: Proxy, make: Callable[..., ApiEngine]
) -> None:
    engine = make(models={"ada": "ada-served"})
    engine.expect([ADA])
    learned = replace(ADA, version="2")
    with pytest.raises(SpartaError, match="model ada was trained since, but its name ada-served"):
        engine.expect([learned])
    complete(engine, [request(engine, ADA, "what?")])
    with pytest.raises(SpartaError, match="model ada was trained since"):
        make(models={"ada": "ada-served"}).expect([learned])
    make(models={"ada": "ada-2-served"}).expect([learned])


def test_an_endpoint_that_loads_no_adapters_is_named(proxy: Proxy, make: Callable[..., ApiEngine]) -> None:
    proxy.always = lambda _: Reply(404, {"detail": "Not Found"})
    engine = make(load_adapters=True)
    said = refusal(engine, [request(engine, ADA, "what?")])
    assert "cannot load the adapter" in said
    assert "adapters/ada of ada (answered HTTP 404: Not Found)" in said
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" in said


def test_an_adapter_is_loaded_once_per_version_and_again_if_it_was_lost(
    proxy: Proxy, make: Callable[..., ApiEngine]
) -> None:
    engine = make(load_adapters=True)
    engine.expect([ADA])
    complete(engine, [request(engine, ADA, "what?", seed=i) for i in range(5)])
    proxy.replies.append(error(404, "no such model"))
    complete(engine, [request(engine, ADA, "what?", seed=9)])
    later = replace(ADA, version="2")
    engine.expect([later])
    complete(engine, [request(engine, later, "what?")])
    [first, again, second, gone] = [seen for seen in proxy.seen if "lora" in seen.path]
    assert first == again
    assert first.body["lora_path"] == str(Path("adapters/ada").absolute())
    assert second.path.endswith("/load_lora_adapter")
    assert second.body["lora_name"] != first.body["lora_name"]
    assert (gone.path, gone.body) == ("/v1/unload_lora_adapter", {"lora_name": first.body["lora_name"]})
    assert proxy.chats[-1].body["model"] == second.body["lora_name"]


def test_copies_are_one_adapter_at_the_endpoint_until_they_are_trained(
    proxy: Proxy, make: Callable[..., ApiEngine]
) -> None:
    engine = make(load_adapters=True)
    copies = [ADA, replace(ADA, name="ada-2"), replace(ADA, name="ada-3")]
    engine.expect(copies)
    complete(engine, [request(engine, copy, "what?", seed=i) for i, copy in enumerate(copies)])
    [loaded] = [seen for seen in proxy.seen if "lora" in seen.path]
    assert {chat.body["model"] for chat in proxy.chats} == {loaded.body["lora_name"]}
    assert len(proxy.chats) == 3, "each is asked for itself"
    learned = [replace(copy, version=f"{copy.name} has learned") for copy in copies]
    engine.expect(learned)
    complete(engine, [request(engine, copy, "what?") for copy in learned])
    later = [seen for seen in proxy.seen if "lora" in seen.path][1:]
    [gone] = [seen.body["lora_name"] for seen in later if "unload" in seen.path]
    assert gone == loaded.body["lora_name"]
    assert (
        len({seen.body["lora_name"] for seen in later if seen.body["lora_name"] != gone})
        == len(later) - 1
        == 3
    )

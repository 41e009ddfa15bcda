"""Grade: the evaluation judge, greedy first; an unreadable grade is missing and counted, never zero."""

import json
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from support.fake_tasks import Quiz, complete, questions
from support.scripted_run import advance, begin, rows_on_disk, write_adapter

from sparta.chat.judge_prompts import GRADING, grading_pattern
from sparta.chat.template import Message
from sparta.cluster.attempts import AttemptDir
from sparta.engines.base import Completion, Request
from sparta.engines.factory import close_engine
from sparta.engines.scripted import ScriptedEngine
from sparta.errors import SpartaError
from sparta.evaluation.answer import Evaluate
from sparta.evaluation.grade import GradeAnswers
from sparta.evaluation.items import freeze_items
from sparta.evaluation.judge_requests import RETRY_TEMPERATURE
from sparta.evaluation.scores import scores
from sparta.grading.rubrics import Rubric
from sparta.methods.registry import phases_of
from sparta.phases.base import ArrayPhase
from sparta.recipes.load import adjust
from sparta.store import files
from sparta.store.records import Answer, Grade
from sparta.store.run import Run
from sparta.store.shards import ShardWriter, read_shards
from sparta.tasks import registry
from sparta.tasks.base import Item, Metric

JUDGE = {"base": "judge", "engine": {"kind": "scripted"}}
KIND = Rubric("Grade how kind it is.")
CLEAR = Rubric("Grade how clear it is.", reference=False)
METRICS = (Metric("accuracy"), Metric("kind", 10.0, KIND), Metric("clear", 10.0, CLEAR))

Register = Callable[..., Quiz]


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Register:
    """Registers a task with two metrics that need a judge, only in this process."""

    def register(name: str = "essay", **fields: object) -> Quiz:
        splits = {"validation": questions("v", 3, reference="gold")}
        quiz = Quiz(name, **{"metrics": METRICS, "splits": splits, **fields})  # type: ignore[arg-type]
        monkeypatch.setitem(registry.TASKS, name, quiz)
        return quiz

    return register


def answered(folder: Path, judge: dict[str, object] | None = JUDGE, *tasks: str, **options: object) -> Run:
    """A run whose M^0 has answered."""
    folder.mkdir(exist_ok=True)
    run = begin(folder, evaluation={"judge": judge}, **options)
    asked = dict.fromkeys(tasks or ("essay",), ("iter_00",))
    for task in asked:
        freeze_items(run, task, "validation")
    complete(run, Evaluate("validation", asked))
    return run


def grading(*tasks: str, entries: tuple[str, ...] = ("iter_00",)) -> GradeAnswers:
    return GradeAnswers("validation", dict.fromkeys(tasks or ("essay",), entries))


def grades(run: Run, phase: GradeAnswers) -> dict[str, Grade]:
    return {key: row for part in phase.parts for key, row in read_shards(part.folder(run), Grade).items()}


def seen(monkeypatch: pytest.MonkeyPatch, say: Callable[[Request], str] | None = None) -> list[Request]:
    """All requests to the judge from now on; it replies with the result of `say`."""
    asked: list[Request] = []
    scripted = ScriptedEngine._complete

    def noting(engine: ScriptedEngine, request: Request, began: float) -> Completion:
        if request.model.name != "judge":
            return scripted(engine, request, began)
        asked.append(request)
        if say is None:
            return scripted(engine, request, began)
        return Completion(request.key, say(request), (1,) * 5, 7, "stop", 0.5)

    monkeypatch.setattr(ScriptedEngine, "_complete", noting)
    return asked


def test_every_answer_is_graded_by_every_metric_that_a_judge_gives(
    tmp_path: Path, register: Register
) -> None:
    register()
    register("other", metrics=METRICS[1:2])
    run = answered(tmp_path, JUDGE, "essay", "other")
    phase = grading("essay", "other")
    phase.check(run)
    complete(run, phase)
    [attempt] = AttemptDir(run, phase, 0).all()
    assert attempt.items == 4 * 3 * 2 + 4 * 3
    found = grades(run, phase)
    assert Counter(key for part in phase.parts for key in rows_on_disk(run, part, 0)) == Counter(
        item.key for item in phase.work(run, 0)
    )
    assert {"essay/iter_00-model1/clear/v/0", "other/iter_00-model1/kind/v/2"} <= found.keys()
    assert all(row.score is not None and 0 <= row.score <= 10 and row.tries == 1 for row in found.values())
    assert len({row.score for row in found.values()}) > 2
    by_metric = scores(run, "validation", "essay", "kind", ("iter_00",))
    assert {each.ungraded for each in by_metric.values()} == {0}
    assert by_metric["iter_00-model1"].values == {
        f"v/{n}": found[f"essay/iter_00-model1/kind/v/{n}"].score for n in range(3)
    }
    assert not list((run.state.evals / "essay" / "validation").glob("grades-*"))[1:]


def test_the_judge_reads_question_reference_and_answer_and_replies_with_a_number(
    tmp_path: Path, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    register()
    run = answered(tmp_path)
    asked = seen(monkeypatch)
    phase = grading()
    complete(run, phase)
    texts = {key: row.text for key, row in read_shards(phase.parts[0].answers.folder(run), Answer).items()}
    assert len(asked) == 24
    for request in asked:
        task, checkpoint, metric, item = request.key.split("/", 3)
        [turn] = request.prompt.messages
        rubric = KIND if metric == "kind" else CLEAR
        reference = "<reference>\ngold\n</reference>\n" if metric == "kind" else ""
        assert turn.content == (
            f"{rubric.introduction}\n<question>\nv question {item[-1]}\n</question>\n{reference}"
            f"<response>\n{texts[f'{task}/{checkpoint}/{item}']}\n</response>\n{GRADING}"
        )
        assert request.pattern == grading_pattern(GRADING) and request.sampling.temperature == 0
        assert request.sampling.max_new_tokens == 32
    assert re.fullmatch(grading_pattern(GRADING), '{"score": 0}') and re.fullmatch(
        grading_pattern(GRADING), '{"score": 10}'
    )


def test_an_unreadable_grade_is_retried_with_sampling_and_finally_missing(
    tmp_path: Path, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    register()
    run = answered(tmp_path, {**JUDGE, "retries": 2})
    tries: Counter[str] = Counter()

    def say(request: Request) -> str:
        tries[request.key] += 1
        if request.key.endswith("v/0"):
            return "eleven of ten" if tries[request.key] < 3 else '{"score": 0}'
        return '{"score": 11}' if request.key.endswith("v/1") else '{"score": 4}'

    asked = seen(monkeypatch, say)
    phase = grading()
    complete(run, phase)
    for row in grades(run, phase).values():
        expected = {"v/0": (0.0, 3), "v/1": (None, 3), "v/2": (4.0, 1)}[row.item_id]
        assert (row.score, row.tries) == expected
        assert (row.new_tokens, row.seconds, row.prompt_tokens) == (5 * row.tries, 0.5 * row.tries, 7)
    assert grades(run, phase)["essay/iter_00-model0/kind/v/1"].raw == '{"score": 11}'
    by_key: dict[str, list[Request]] = {}
    for request in asked:
        by_key.setdefault(request.key, []).append(request)
    for first, *more in by_key.values():
        assert first.sampling.temperature == 0
        assert {request.sampling.temperature for request in more} <= {RETRY_TEMPERATURE}
        assert len({request.seed for request in (first, *more)}) == 1 + len(more)
    scored = scores(run, "validation", "essay", "clear", ("iter_00",))["iter_00-model3"]
    assert (scored.values, scored.ungraded) == ({"v/0": 0.0, "v/2": 4.0}, 1)
    assert not phase.missing(run, 0), "a missing grade is a result"


def test_only_missing_grades_are_made_and_they_are_the_same(tmp_path: Path, register: Register) -> None:
    register()
    run = answered(
        tmp_path, {**JUDGE, "engine": {"kind": "scripted", "scripted": {"unreadable": {"judge": 0.5}}}}
    )
    phase = grading()
    complete(run, phase)
    before = {key: (row.score, row.tries) for key, row in grades(run, phase).items()}
    assert {tries for _, tries in before.values()} == {1, 2, 3}
    [path] = phase.parts[0].folder(run).glob("*.jsonl")
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:7]))
    assert len(phase.missing(run, 0)) == 17
    keys = [item.key for item in phase.work(run, 0)]
    for shard in range(3):
        phase.perform(run, 0, keys[shard::3], 1, shard, lambda _: None)
    assert Counter(rows_on_disk(run, phase.parts[0], 0)) == Counter(before.keys())
    assert {key: (row.score, row.tries) for key, row in grades(run, phase).items()} == before


def test_answers_to_one_item_are_assigned_together_because_their_prompts_share_a_prefix(
    tmp_path: Path, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    register()
    run = answered(tmp_path)
    asked = seen(monkeypatch)
    complete(run, grading())
    items = [(metric, item) for _, _, metric, item in (request.key.split("/", 3) for request in asked)]
    assert items == [pair for pair in dict.fromkeys(items) for _ in run.models]
    assert len({item.bundle for item in grading().work(run, 0)}) == 3 * 2


def test_an_empty_answer_is_graded_and_a_prompt_that_was_too_long_is_not(
    tmp_path: Path, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(max_new_tokens=1)
    run = begin(tmp_path, evaluation={"judge": JUDGE})
    freeze_items(run, "essay", "validation")
    [part] = Evaluate("validation", {"essay": ("iter_00-model0",)}).parts
    with ShardWriter(part.folder(run), 0, 0) as writer:
        for number, (text, reason) in enumerate([("", "stop"), ("", "prompt_too_long"), ("some", "length")]):
            writer.write(Answer("essay", "iter_00-model0", f"v/{number}", text, {}, 9, 0, reason))  # type: ignore[arg-type]
    seen(monkeypatch, lambda request: '{"score": 5}')
    phase = grading(entries=("iter_00-model0",))
    complete(run, phase)
    assert {row.item_id for row in grades(run, phase).values()} == {"v/0", "v/2"}
    [scored] = scores(run, "validation", "essay", "kind", ("iter_00-model0",)).values()
    assert (scored.values, scored.ungraded) == ({"v/0": 5.0, "v/2": 5.0}, 1)


@pytest.mark.parametrize(("limit", "grade"), [(8, None), (9, None), (30, 10)])
def test_a_grade_that_the_token_limit_may_have_cut_is_missing(
    limit: int, grade: float | None, tmp_path: Path, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    register()
    run = answered(tmp_path, {**JUDGE, "max_new_tokens": limit, "retries": 0})
    monkeypatch.setattr(ScriptedEngine, "_text", lambda engine, request: "Score: 10")
    phase = grading()
    complete(run, phase)
    assert {row.score for row in grades(run, phase).values()} == {grade}


def test_a_question_too_long_for_the_judge_has_no_grade(tmp_path: Path, register: Register) -> None:
    long = Item("long", (Message("user", "word " * 100),), reference="gold")
    register(splits={"validation": [long, *questions("v", 1)]})
    run = answered(tmp_path, {**JUDGE, "engine": {"kind": "scripted", "context_length": 450}})
    phase = grading()
    complete(run, phase)
    found = grades(run, phase)
    assert {(row.score, row.tries, row.raw) for row in found.values() if row.item_id == "long"} == {
        (None, 1, "")
    }
    assert all(row.score is not None for row in found.values() if row.item_id != "long")


@pytest.mark.parametrize(
    "change",
    [
        "evaluation.judge.base=another",
        "evaluation.judge.adapter=embedded:adder",
        "evaluation.judge.max_new_tokens=64",
        "evaluation.judge.retries=5",
        "evaluation.judge.engine.kind=hf",
        "evaluation.judge.engine.dtype=float32",
        "evaluation.judge.engine.context_length=8192",
        "evaluation.judge.engine.api.models={judge: another}",
        "evaluation.max_new_tokens=5",
        "evaluation.chat_template=false",
        "rubric",
    ],
)
def test_grades_of_another_judge_another_rubric_or_other_answers_are_others(
    change: str, tmp_path: Path, register: Register
) -> None:
    quiz = register()
    run = answered(tmp_path)
    complete(run, grading())
    before = grading().parts[0].folder(run)
    if change == "rubric":
        quiz.metrics = (METRICS[0], Metric("kind", 10.0, CLEAR), METRICS[2])
    else:
        run.recipe = adjust(run.recipe, [change])
        complete(run, Evaluate("validation", {"essay": ("iter_00",)}))
    assert grading().parts[0].folder(run) != before
    assert len(grading().missing(run, 0)) == 24


@pytest.mark.parametrize(
    "change",
    ["api.url=http://127.0.0.1:9/v1", "api.retries=9", "api.max_cost=5", "threads=2", "vllm.sequences=8"],
)
def test_another_address_or_machine_does_not_change_grades(
    change: str, tmp_path: Path, register: Register
) -> None:
    register()
    run = answered(tmp_path)
    before = grading().parts[0].folder(run)
    run.recipe = adjust(run.recipe, [f"evaluation.judge.engine.{change}"])
    assert grading().parts[0].folder(run) == before


def test_the_judge_s_adapter_is_read_once_and_known_by_its_content(
    tmp_path: Path, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    register()
    digest, read, names = files.sha256_tree, [], []

    def noting(folder: Path) -> str:
        read.append(folder)
        return digest(folder)

    for place in ("here", "there"):
        adapter = write_adapter(tmp_path / place, seed=1)
        run = answered(tmp_path / f"run-{place}", {**JUDGE, "adapter": str(adapter)})
        monkeypatch.setattr(files, "sha256_tree", noting)
        names += [grading().parts[0].folder(run).name for _ in range(3)]
        monkeypatch.setattr(files, "sha256_tree", digest)
    assert read == [tmp_path / "here", tmp_path / "there"]
    assert len(set(names)) == 1


def test_only_grading_uses_the_judge_s_engine(tmp_path: Path, register: Register) -> None:
    register()
    run = begin(tmp_path, evaluation={"judge": {"base": "judge", "engine": {"kind": "hf", "threads": 3}}})
    assert run.recipe.evaluation.judge is not None
    assert grading().engine(run.recipe) is run.recipe.evaluation.judge.engine
    others = [Evaluate("validation", {"essay": ("iter_00",)}), *phases_of(run.recipe, 1)]
    assert {id(phase.engine(run.recipe)) for phase in others if isinstance(phase, ArrayPhase)} == {
        id(run.recipe.engine)
    }


def test_grading_before_all_answers_are_there_is_refused(tmp_path: Path, register: Register) -> None:
    register()
    run = answered(tmp_path)
    advance(run, 1)
    phase = grading(entries=("iter_00", "iter_01"))
    with pytest.raises(
        SpartaError, match="iter_01-model0 has no answer to v/0 in .*answers-chat-64: run the evaluation"
    ):
        phase.work(run, 0)
    with pytest.raises(
        SpartaError, match="has no row essay/iter_00-model0/kind/v/0: run the evaluation again"
    ):
        scores(run, "validation", "essay", "kind", ("iter_00",))


def test_without_a_judge_there_is_nothing_to_grade_with(tmp_path: Path, register: Register) -> None:
    register()
    run = answered(tmp_path, None)
    with pytest.raises(SpartaError, match=r"the recipe names no judge, .*: set evaluation\.judge"):
        grading().check(run)


def test_a_task_that_needs_no_judge_is_refused(tmp_path: Path, register: Register) -> None:
    register("plain", metrics=METRICS[:1])
    run = answered(tmp_path, JUDGE, "plain")
    with pytest.raises(SpartaError, match="plain has no metric that needs a judge"):
        grading("plain").check(run)


@pytest.mark.parametrize(
    ("judge", "said"),
    [
        (
            {"base": "./nowhere", "engine": {"kind": "hf"}},
            "evaluation.judge: base .*nowhere is not a folder",
        ),
        ({"base": "embedded:nobody", "engine": {"kind": "hf"}}, "there is no embedded model nobody"),
        ({"base": "embedded:base", "adapter": "/nowhere", "engine": {"kind": "hf"}}, "nowhere"),
        (
            {
                "base": "gemini",
                "engine": {
                    "kind": "api",
                    "api": {"url": "https://api.vendor.com/v1", "key_variable": "NO_KEY"},
                },
            },
            "NO_KEY",
        ),
    ],
)
def test_a_judge_that_cannot_work_is_reported_before_anything_starts(
    judge: dict[str, object], said: str, tmp_path: Path, register: Register
) -> None:
    register()
    run = answered(tmp_path, judge)
    with pytest.raises(SpartaError, match=said):
        grading().check(run)


def test_an_endpoint_that_is_down_is_reported_in_one_sentence_and_existing_grades_stay(
    tmp_path: Path, register: Register
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        register()
        run = answered(
            tmp_path, {"base": "gemini", "engine": {"kind": "api", "api": {"url": url, "retries": 0}}}
        )
        phase = grading()
        phase.check(run)
        with pytest.raises(SpartaError, match="could not be reached") as told:
            complete(run, phase)
        close_engine()
    assert f"{url}, asked for judge, could not be reached" in str(told.value) and "\n" not in str(told.value)
    assert len(phase.missing(run, 0)) == 24
    run.recipe = adjust(run.recipe, ["evaluation.judge.engine.kind=scripted"])
    complete(run, phase)
    assert len(grades(run, phase)) == 24


@pytest.fixture
def endpoint() -> Iterator[tuple[str, list[dict[str, object]]]]:
    """A server that replies unreadably to greedy calls about clearness and with 7 to all others; and the bodies of all calls."""
    bodies: list[dict[str, object]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            bodies.append(body)
            vague = CLEAR.introduction in body["messages"][0]["content"] and body["temperature"] == 0
            message = {"role": "assistant", "content": "well" if vague else '{"score": 7}'}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            usage = {"prompt_tokens": 9, "completion_tokens": 5}
            data = json.dumps({"id": "x", "choices": [choice], "usage": usage}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1", bodies
    close_engine()
    server.shutdown()
    server.server_close()


def test_spending_counts_for_the_judge(
    endpoint: tuple[str, list[dict[str, object]]], tmp_path: Path, register: Register
) -> None:
    url, bodies = endpoint
    register()
    api = {"url": url, "concurrency": 1, "input_price": 1e6, "max_cost": 20}
    run = answered(tmp_path, {"base": "gemini", "engine": {"kind": "api", "api": api}})
    with pytest.raises(
        SpartaError, match=r"cost 27, and evaluation\.judge\.engine\.api\.max_cost allows 20: raise it"
    ):
        complete(run, grading())
    assert len(bodies) == 3


@pytest.mark.parametrize("dialect", ["openai", "vllm"])
def test_an_endpoint_grades_and_no_answer_is_paid_for_twice(
    dialect: str, endpoint: tuple[str, list[dict[str, object]]], tmp_path: Path, register: Register
) -> None:
    url, bodies = endpoint
    register()
    api = {"url": url, "dialect": dialect}
    run = answered(tmp_path, {"base": "gemini", "engine": {"kind": "api", "api": api}})
    phase = grading()
    phase.check(run)
    complete(run, phase)
    found = grades(run, phase)
    assert {(row.metric, row.score, row.tries, row.new_tokens) for row in found.values()} == {
        ("kind", 7.0, 1, 5),
        ("clear", 7.0, 2, 10),
    }
    assert {body["model"] for body in bodies} == {"gemini"}
    assert Counter(body["temperature"] for body in bodies) == {0.0: 24, RETRY_TEMPERATURE: 12}
    form = {"regex": grading_pattern(GRADING)} if dialect == "vllm" else None
    assert all(body.get("structured_outputs") == form for body in bodies)
    assert list(run.state.judge_calls.glob("*.jsonl")) and not list(run.state.calls.glob("*.jsonl"))
    for path in phase.parts[0].folder(run).iterdir():
        path.unlink()
    close_engine()
    complete(run, phase)
    assert len(bodies) == 36 and len(grades(run, phase)) == 24


def test_the_judge_is_a_model_of_its_own_with_weights(tmp_path: Path, register: Register) -> None:
    """An expert of the toy pool grades a scripted pool, with constrained decoding."""
    register(splits={"validation": questions("v", 2)})
    judge = {
        "base": "embedded:base",
        "adapter": "embedded:adder",
        "engine": {"kind": "hf", "device": "cpu", "threads": 1, "context_length": 512},
    }
    run = answered(tmp_path, judge, models=3)
    phase = grading()
    phase.check(run)
    complete(run, phase)
    [attempt] = AttemptDir(run, phase, 0).all()
    [record] = AttemptDir(run, phase, 0).records(attempt)
    close_engine()
    assert record.loads == 1
    found = grades(run, phase)
    assert len(found) == 12 and all(row.score is not None and row.tries == 1 for row in found.values())
    assert all(re.fullmatch(grading_pattern(GRADING), row.raw) for row in found.values())

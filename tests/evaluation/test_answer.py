"""Evaluate: several tasks in one array, every key once; ungraded answers are counted, never zero."""

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec
import pytest
from support.fake_tasks import Quiz, complete, questions
from support.openings import fork
from support.scripted_run import advance, begin, rows_on_disk
from support.toy_experts import begin_with_experts

from sparta.chat.renderer import Renderer
from sparta.chat.template import Message
from sparta.cluster.attempts import AttemptDir
from sparta.engines.base import Completion, Request
from sparta.engines.factory import close_engine
from sparta.engines.scripted import ScriptedEngine
from sparta.errors import SpartaError
from sparta.evaluation.answer import Evaluate, checkpoints
from sparta.evaluation.answer_requests import before_stop, prompt_format_of
from sparta.evaluation.grade import GradeAnswers
from sparta.evaluation.items import freeze_items, items_file, items_of
from sparta.evaluation.scores import scores
from sparta.methods.registry import phase_named
from sparta.phases.base import PhaseSpec
from sparta.recipes.data import Data
from sparta.recipes.load import adjust
from sparta.store.layout import StateDir, parse_checkpoint
from sparta.store.records import Answer, Instruction
from sparta.store.run import Run
from sparta.store.shards import read_shards
from sparta.tasks import registry
from sparta.tasks.base import Item, Metric
from sparta.tasks.benchmarks import normad
from sparta.tasks.registry import task_named

Register = Callable[..., Quiz]


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Register:
    """Registers a task, only in this process."""

    def register(name: str, **fields: object) -> Quiz:
        quiz = Quiz(name, **fields)  # type: ignore[arg-type]
        monkeypatch.setitem(registry.TASKS, name, quiz)
        return quiz

    return register


def length(item: Item, text: str) -> dict[str, float]:
    return {"accuracy": float(len(text))}


def frozen(run: Run, split: str = "validation", **asked: tuple[str, ...]) -> Evaluate:
    """The phase, with frozen items."""
    for task in asked:
        freeze_items(run, task, split)  # type: ignore[arg-type]
    return Evaluate(split, asked)  # type: ignore[arg-type]


def answers(run: Run, phase: Evaluate) -> dict[str, Answer]:
    return {key: row for part in phase.parts for key, row in read_shards(part.folder(run), Answer).items()}


def seen(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """All requests to the scripted engine from now on."""
    asked: list[Request] = []
    scripted = ScriptedEngine._complete

    def noting(engine: ScriptedEngine, request: Request, began: float) -> Completion:
        asked.append(request)
        return scripted(engine, request, began)

    monkeypatch.setattr(ScriptedEngine, "_complete", noting)
    return asked


# --- one array for everything


def test_several_tasks_and_checkpoints_are_one_array_with_one_row_a_key(
    tmp_path: Path, register: Register
) -> None:
    run = begin(tmp_path)
    advance(run, 1)
    register("quiz", grader=length)
    register(
        "choice", likelihood=True, splits={"validation": questions("v", 3, choices={"A": "x", "B": "y"})}
    )
    phase = frozen(run, toy=("iter_00", "iter_01"), quiz=("iter_00",), choice=("iter_01-model2",))
    run.recipe = adjust(run.recipe, ["evaluation.validation=4"])
    complete(run, phase)
    [attempt] = AttemptDir(run, phase, 0).all()
    [record] = AttemptDir(run, phase, 0).records(attempt)
    assert (attempt.shards, attempt.items, record.outcome) == (1, 8 * 4 + 4 * 4 + 3, "done")
    rows = [key for part in phase.parts for key in rows_on_disk(run, part, 0)]
    assert Counter(rows) == Counter(item.key for item in phase.work(run, 0))
    assert {"quiz/iter_00-model3/validation/2", "choice/iter_01-model2/v/0"} <= set(rows)
    assert not phase.missing(run, 0)


def test_adapters_stay_together_whatever_the_task(
    tmp_path: Path, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(tmp_path)
    register("quiz")
    register("other")
    asked = seen(monkeypatch)
    complete(run, frozen(run, quiz=("iter_00",), other=("iter_00",)))
    models = [request.model.name for request in asked]
    assert [name for name, _ in itertools.groupby(models)] == list(run.models)
    assert all(request.sampling.temperature == 0 for request in asked)


def test_equal_weights_under_several_names_run_once_and_each_name_has_its_row(
    tmp_path: Path, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = [{"name": name, "adapter": f"./adapters/{name}"} for name in ("model0", "model1")]
    members += [{"name": f"model0-{number}", "copy_of": "model0"} for number in (2, 3)]
    run = begin(tmp_path, pool={"base": "none", "models": members})
    advance(run, 1)
    register("quiz", grader=length)
    splits = {"validation": questions("v", 3, choices={"A": "x", "B": "y"})}
    register("choice", likelihood=True, splits=splits)
    asked = seen(monkeypatch)
    first = frozen(run, quiz=("iter_00-model0-2",))
    complete(run, first)
    assert len(asked) == 5
    phase = frozen(run, quiz=("iter_00", "iter_01"), choice=("iter_00",))
    complete(run, phase)
    # Of iteration 0 two models have weights of their own; what one of three copies has answered before, the other two are asked together.
    assert len(asked) == 5 + 5 * (2 + 4) + 3 * 2 * 2
    rows = answers(run, phase)
    assert len(rows) == 5 * 8 + 3 * 4 and not phase.missing(run, 0)
    of = {
        name: [row.choice_logs for key, row in rows.items() if f"choice/iter_00-{name}/" in key]
        for name in run.models
    }
    assert of["model0"] == of["model0-2"] == of["model0-3"] != of["model1"]


def test_only_missing_answers_are_made_and_they_are_the_same(tmp_path: Path, register: Register) -> None:
    run = begin(tmp_path)
    register("quiz", grader=length)
    register("other", grader=length)
    phase = frozen(run, quiz=("iter_00",), other=("iter_00",))
    complete(run, phase)
    before = answers(run, phase)
    [path] = phase.parts[0].folder(run).glob("*.jsonl")
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:7]))
    assert {item.key.partition("/")[0] for item in phase.missing(run, 0)} == {"quiz"}
    complete(run, phase)
    rows = [key for part in phase.parts for key in rows_on_disk(run, part, 0)]
    assert Counter(rows) == Counter(before.keys())
    again = answers(run, phase)
    assert {key: row.text for key, row in again.items()} == {key: row.text for key, row in before.items()}


def test_more_checkpoints_and_tasks_only_add_keys(tmp_path: Path, register: Register) -> None:
    run = begin(tmp_path)
    advance(run, 1)
    register("quiz")
    register("other")
    complete(run, frozen(run, quiz=("iter_00",)))
    more = frozen(run, quiz=("iter_00", "iter_01"), other=("iter_01-model0",))
    assert {item.key.split("/")[1][:7] for item in more.missing(run, 0)} == {"iter_01"}
    assert len(more.missing(run, 0)) == 4 * 5 + 5
    complete(run, more)
    assert [attempt.number for attempt in AttemptDir(run, more, 0).all()] == [0, 1]
    # Shards of one folder never share a name, whoever dealt them.
    assert {path.name for path in more.parts[0].folder(run).iterdir()} == {"a0-00000.jsonl", "a1-00000.jsonl"}


def test_answers_do_not_depend_on_sharding(tmp_path: Path, register: Register) -> None:
    register("quiz", grader=length)
    register(
        "choice", likelihood=True, splits={"validation": questions("v", 3, choices={"A": "x", "B": "y"})}
    )
    found = []
    for shards in (1, 5):
        (tmp_path / str(shards)).mkdir()
        run = begin(tmp_path / str(shards))
        phase = frozen(run, quiz=("iter_00",), choice=("iter_00",))
        keys = [item.key for item in phase.work(run, 0)]
        for shard in range(shards):
            phase.perform(run, 0, keys[shard::shards][::-1], 0, shard, lambda _: None)
        assert not phase.missing(run, 0)
        found.append(
            {key: (row.text, row.grades, row.choice_logs) for key, row in answers(run, phase).items()}
        )
    assert found[0] == found[1] and len(found[0]) == 4 * 8


# --- its name


@pytest.mark.parametrize("kind", [Evaluate, GradeAnswers])
@pytest.mark.parametrize(
    "asked",
    [
        {"toy": ("iter_00", "iter_08")},
        {"toy": ("iter_00",), "gsm8k": ("iter_05-a-b.c_d",), "medqa": ("iter_00",)},
        {"a": ("iter_100", "iter_05-x"), "b": ("iter_100", "iter_05-x"), "c": ("iter_01",)},
    ],
)
def test_a_phase_is_found_by_its_name_and_spec(
    kind: type[Evaluate] | type[GradeAnswers], asked: dict[str, tuple[str, ...]]
) -> None:
    phase = kind("test", asked)
    read = msgspec.json.decode(msgspec.json.encode(phase.spec), type=PhaseSpec)
    again = phase_named(phase.name, read)
    assert type(again) is kind
    assert (again.requested, again.split, again.spec) == (asked, "test", phase.spec)
    assert list(again.requested) == list(phase.requested)


def test_a_name_of_version_0_1_0_holds_the_spec() -> None:
    phase = phase_named("evaluate:validation:toy+com2=iter_00,iter_08;own=iter_05-adder")
    pools = ("iter_00", "iter_08")
    assert isinstance(phase, Evaluate) and phase.name == "evaluate"
    assert (phase.split, phase.requested) == (
        "validation",
        {"toy": pools, "com2": pools, "own": ("iter_05-adder",)},
    )
    assert phase.title == "score toy, com2, own validation"
    assert type(phase_named("grade:test:essay=iter_08")) is GradeAnswers


@pytest.mark.parametrize(
    "name",
    [
        "evaluate:toy:validation:0,8:",
        "evaluate:test:",
        "evaluate:",
        "evaluate",
        "evaluate:nonsense:toy=iter_00",
        "grade:test:toy=",
        "evaluate:test:toy",
        "merge:test:toy=iter_00",
    ],
)
def test_a_name_of_another_version_is_refused(name: str) -> None:
    with pytest.raises(SpartaError, match="another version"):
        phase_named(name)


@pytest.mark.parametrize("task", ["a+b", "a=b", "a;b", "a:b", "a/b", "../a", "a,b", ""])
def test_a_task_that_cannot_be_a_folder_is_no_task(task: str) -> None:
    with pytest.raises(SpartaError, match="there is no task"):
        Evaluate("test", {task: ("iter_00",)})


@pytest.mark.parametrize(
    "name", ["iter_5", "05-adder", "iter_05-", "iter_05-a/b", "iter_05-a,b", "iter_05 ", "adder", ""]
)
def test_what_is_no_checkpoint_is_refused(name: str) -> None:
    with pytest.raises(SpartaError, match="is neither a checkpoint"):
        parse_checkpoint(name)


def test_entries_are_iterations_or_checkpoints_each_model_once(tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 1)
    found = checkpoints(run, ["iter_01-model2", "iter_00", "iter_00-model1"])
    assert list(found) == ["iter_01-model2", *(f"iter_00-{name}" for name in run.models)]
    assert found["iter_01-model2"].version != found["iter_00-model2"].version
    with pytest.raises(SpartaError, match="there is no checkpoint iter_00-nobody: .* model0, model1"):
        checkpoints(run, ["iter_00-nobody"])


# --- the items


def test_items_are_frozen_once_and_the_first_of_them_count(tmp_path: Path, register: Register) -> None:
    run = begin(tmp_path, evaluation={"validation": 3})
    with pytest.raises(SpartaError, match=r"items\.jsonl is missing"):
        items_of(run, "quiz", "validation")
    quiz = register("quiz")
    freeze_items(run, "quiz", "validation")
    before = items_file(run, "quiz", "validation").read_bytes()
    quiz.splits["validation"] = questions("changed", 2)
    freeze_items(run, "quiz", "validation")
    assert items_file(run, "quiz", "validation").read_bytes() == before
    assert [item.item_id for item in items_of(run, "quiz", "validation")] == [
        f"validation/{n}" for n in range(3)
    ]
    assert not items_file(run, "quiz", "test").exists()
    run.recipe = adjust(run.recipe, ["evaluation.validation=null"])
    assert len(items_of(run, "quiz", "validation")) == 5


def test_a_frozen_item_is_read_back_unchanged(tmp_path: Path, register: Register) -> None:
    run = begin(tmp_path)
    item = Item(
        "é",
        (Message("system", "s"), Message("user", "u\n")),
        reference="r",
        choices={"B": "b", "A": "a"},
        answer="A",
        right=("A", "B"),
        level="hard",
    )
    register("quiz", splits={"test": [item, Item("plain", (Message("user", "?"),))]})
    freeze_items(run, "quiz", "test")
    found = items_of(run, "quiz", "test")
    assert found[0] == item and list(found[0].choices) == ["A", "B"], "labels are sorted"
    line = items_file(run, "quiz", "test").read_text().splitlines()[1]
    assert json.loads(line) == {"id": "plain", "messages": [{"role": "user", "content": "?"}]}


@pytest.mark.parametrize("ids", [("a", "a"), ("a\nb",), ("a\r",), ("",)])
def test_ambiguous_item_ids_are_refused(ids: tuple[str, ...], tmp_path: Path, register: Register) -> None:
    run = begin(tmp_path)
    register("quiz", splits={"test": [Item(name, (Message("user", "?"),)) for name in ids]})
    with pytest.raises(SpartaError, match="used twice or is not a single line"):
        freeze_items(run, "quiz", "test")
    assert not items_file(run, "quiz", "test").exists()


def test_an_empty_split_is_refused(tmp_path: Path, register: Register) -> None:
    register("quiz", splits={"test": []})
    with pytest.raises(SpartaError, match="the test split of quiz has no items"):
        freeze_items(begin(tmp_path), "quiz", "test")


@pytest.mark.parametrize("split", ["validation", "test"])
def test_an_item_that_is_in_the_other_split_by_now_is_refused(
    split: str, tmp_path: Path, register: Register
) -> None:
    run, other = begin(tmp_path), {"validation": "test", "test": "validation"}[split]
    quiz = register("quiz")
    freeze_items(run, "quiz", other)
    quiz.splits[split] = [*questions("new", 3), Item("moved", (Message("user", f"{other}  Question 4"),))]
    with pytest.raises(
        SpartaError, match=f"the item moved of the {split} split of quiz is also in .*quiz/{other}/items"
    ):
        freeze_items(run, "quiz", split)
    assert not items_file(run, "quiz", split).exists()
    quiz.splits[split].pop()
    freeze_items(run, "quiz", split)


def own(folder: Path, grading: str = "exact", **rows: list[dict[str, object]]) -> Run:
    """A run on the user's own files, by split."""
    files = {split: str(folder / f"{split}.jsonl") for split in rows}
    for split, path in files.items():
        Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows[split]))
    return begin(folder, data={"train": "prompts.jsonl", "grading": grading, **files})


def numbered(split: str, **fields: object) -> list[dict[str, object]]:
    return [{"prompt": f"{split} {number}?", "answer": 7, **fields} for number in range(3)]


def test_what_the_run_learned_from_is_not_scored_on(tmp_path: Path) -> None:
    run = own(tmp_path, validation=numbered("v"))
    # The file of instructions has changed since, or nobody would have to look here.
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "another"}\n')
    (tmp_path / "validation.jsonl").write_text('{"prompt": "Question 7", "answer": 1}\n')
    with pytest.raises(
        SpartaError, match=r"the item p000001 of the validation split of own is also in .*data/train\.jsonl"
    ):
        freeze_items(run, "own", "validation")


@pytest.mark.parametrize("asked", ["in_combat", "posed"])
def test_an_item_is_known_from_training_in_either_wording(
    asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """posed: as in a run of an earlier version, which prompted for one word in combats too."""
    [story] = [Item("s", (Message("user", f"A story.\n\n{normad.ONE_WORD}"),), answer="yes")]
    run = begin(tmp_path)
    run.recipe = run.recipe.model_copy(update={"data": Data(task="normad_country", folder=str(tmp_path))})
    form = getattr(normad.COUNTRY, asked)
    run.instructions = [Instruction("s", form(story).messages)]
    monkeypatch.setattr(type(normad.COUNTRY), "items", lambda *_: [story])
    with pytest.raises(SpartaError, match=r"the item s of the validation split of normad_country is also in"):
        freeze_items(run, "normad_country", "validation")


def test_a_users_file_that_changed_since_it_was_scored_on_is_refused(tmp_path: Path) -> None:
    run = own(tmp_path, validation=numbered("v"), test=numbered("t"))
    path, frozen = tmp_path / "validation.jsonl", items_file(run, "own", "validation")
    freeze_items(run, "own", "validation")
    freeze_items(run, "own", "validation")
    before = path.read_bytes()
    path.write_bytes(before.splitlines(keepends=True)[0])
    with pytest.raises(
        SpartaError, match=f"data.validation names {path}, which has other items than {frozen}"
    ):
        freeze_items(run, "own", "validation")
    run.recipe = adjust(run.recipe, [f"data.validation={tmp_path / 'test.jsonl'}", f"data.test={path}"])
    path.write_bytes(before)
    with pytest.raises(SpartaError, match=f"names {tmp_path / 'test.jsonl'}, which has other items"):
        freeze_items(run, "own", "validation")
    with pytest.raises(SpartaError, match=f"of the test split of own is also in {frozen}"):
        freeze_items(run, "own", "test")
    # What was scored is known whatever becomes of the file.
    run.recipe = adjust(run.recipe, [f"data.validation={path}", "data.test=null"])
    path.unlink()
    freeze_items(run, "own", "validation")
    assert len(items_of(run, "own", "validation")) == 3


def test_another_grading_of_a_users_files_has_separate_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = own(tmp_path, validation=numbered("v"))
    monkeypatch.setattr(
        ScriptedEngine,
        "_complete",
        lambda engine, request, began: Completion(request.key, "It is 7.", (1,), 7, "stop", 0.5),
    )
    found = {}
    for grading in ("exact", "number"):
        run.recipe = adjust(run.recipe, [f"data.grading={grading}"])
        phase = frozen(run, own=("iter_00-model0",))
        assert len(phase.missing(run, 0)) == 3
        complete(run, phase)
        [scored] = scores(run, "validation", "own", "accuracy", ("iter_00-model0",)).values()
        found[phase.parts[0].folder(run).name] = set(scored.values.values())
    assert found == {"answers-chat-512-exact": {0.0}, "answers-chat-512-number": {1.0}}


def test_items_are_prompted_for_the_present_grading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if the grading was another one when items were frozen."""
    run = own(tmp_path, "likelihood", validation=numbered("v", answer="B", choices=["red", "green"]))
    asked = seen(monkeypatch)
    found = {}
    for grading in ("likelihood", "letter", "judge", "exact"):
        run.recipe = adjust(run.recipe, [f"data.grading={grading}"])
        phase = frozen(run, own=("iter_00-model0",))
        complete(run, phase)
        [item, *_] = items_of(run, "own", "validation")
        found[phase.parts[0].folder(run).name] = asked[-1].prompt.messages[0].content, item.reference
    assert found == {
        "answers-chat-likelihood": ("v 2?", None),
        "answers-chat-512-letter": ("v 2?\nA. red\nB. green", None),
        "answers-chat-512-judge": ("v 2?", "green"),
        "answers-chat-512-exact": ("v 2?", None),
    }


# --- how it is asked


def test_another_limit_or_prompt_format_is_another_folder(tmp_path: Path, register: Register) -> None:
    run = begin(tmp_path)
    register("quiz", max_new_tokens=40)
    register("weighed", likelihood=True, chat_template=False)
    names = []
    for settings in ([], ["evaluation.max_new_tokens=9"], ["evaluation.chat_template=false"]):
        run.recipe = adjust(run.recipe, settings)
        names.append([str(prompt_format_of(run.recipe, task_named(name))) for name in ("quiz", "weighed")])
    assert names == [
        ["chat-40", "plain-likelihood"],
        ["chat-9", "plain-likelihood"],
        ["plain-9", "plain-likelihood"],
    ]
    phase = frozen(run, quiz=("iter_00-model0",))
    complete(run, phase)
    run.recipe = adjust(run.recipe, ["evaluation.max_new_tokens=10"])
    assert len(phase.missing(run, 0)) == 5
    complete(run, phase)
    folders = sorted(
        path.name for path in (run.state.evals / "quiz" / "validation").iterdir() if path.is_dir()
    )
    assert folders == ["answers-plain-10", "answers-plain-9"]


def test_prompts_use_the_template_or_plain_text_as_the_task_says(
    tmp_path: Path, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(tmp_path)
    register("chat", max_new_tokens=7)
    register("plain", chat_template=False, max_new_tokens=8, stop=("\nQ:",))
    asked = seen(monkeypatch)
    complete(run, frozen(run, chat=("iter_00-model0",), plain=("iter_00-model0",)))
    engine = ScriptedEngine(run.recipe.engine)
    renderer: Renderer = engine._renderer
    for request in asked:
        name = request.key.partition("/")[0]
        messages = request.prompt.messages
        expected = renderer.combat(messages) if name == "chat" else renderer.plain(messages)
        assert request.prompt == expected
        assert (request.sampling.max_new_tokens, request.sampling.stop) == {
            "chat": (7, ()),
            "plain": (8, ("\nQ:",)),
        }[name]
    assert len({request.prompt.token_ids for request in asked}) == 10


def test_what_is_graded_ends_before_the_stop_string(tmp_path: Path, register: Register) -> None:
    run, graded = begin(tmp_path), []
    register(
        "quiz",
        chat_template=False,
        stop=(" quality", ","),
        grader=lambda item, text: graded.append(text) or {"accuracy": 1.0},
    )
    phase = frozen(run, quiz=("iter_00",))
    complete(run, phase)
    rows = answers(run, phase)
    assert sorted(graded) == sorted(row.text for row in rows.values())
    assert all(row.text.startswith("scripted answer") and "," not in row.text for row in rows.values())
    assert {row.finish_reason for row in rows.values()} == {"stop"}
    assert all(row.new_tokens == len(row.text) + 1 for row in rows.values()), "the comma was written"


@pytest.mark.parametrize(
    ("text", "stops", "left"),
    [
        ("ab\nQ: c", ("\nQ:",), "ab"),
        ("ab", ("x",), "ab"),
        ("axbyc", ("y", "x"), "a"),
        ("xa", ("x",), ""),
        ("a", (), "a"),
    ],
)
def test_a_text_is_cut_at_its_first_stop_string(text: str, stops: tuple[str, ...], left: str) -> None:
    assert before_stop(text, stops) == left


def test_choices_are_scored_in_label_order_and_nothing_is_generated(
    tmp_path: Path, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    def score_likelihoods(item: Item, logs: Mapping[str, float]) -> dict[str, float]:
        return {"accuracy": float(max(logs, key=lambda label: logs[label]) == item.answer)}

    run = begin(tmp_path)
    register(
        "choice",
        likelihood=True,
        likelihood_scorer=score_likelihoods,
        splits={"validation": questions("v", 6, choices={"B": "oak", "A": "elm"}, answer="A")},
    )
    asked = seen(monkeypatch)
    phase = frozen(run, choice=("iter_00",))
    complete(run, phase)
    assert len(asked) == 4 * 6 * 2
    assert {bytes(request.continuation) for request in asked} == {b"oak", b"elm"}
    rows = answers(run, phase)
    assert len(rows) == 4 * 6
    for row in rows.values():
        assert (row.text, row.new_tokens, row.finish_reason, len(row.choice_logs)) == ("", 0, "stop", 2)
        assert row.prompt_tokens > 0
        assert row.grades == {"accuracy": float(row.choice_logs[0] > row.choice_logs[1])}, "A, then B"
    assert {row.grades["accuracy"] for row in rows.values()} == {0.0, 1.0}


def test_a_choice_after_plain_text_follows_a_space(
    tmp_path: Path, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(tmp_path)
    items = questions("v", 1, choices={"A": "x", "B": "yy"})
    register("choice", likelihood=True, chat_template=False, splits={"validation": items})
    asked = seen(monkeypatch)
    complete(run, frozen(run, choice=("iter_00-model0",)))
    assert [bytes(request.continuation) for request in asked] == [b" x", b" yy"]


@pytest.mark.parametrize("choices", [{}, {"A": "x", "B": " "}])
def test_choices_that_cannot_be_scored_are_named(
    choices: dict[str, str], tmp_path: Path, register: Register
) -> None:
    run = begin(tmp_path)
    register("choice", likelihood=True, splits={"validation": questions("v", 2, choices=choices)})
    with pytest.raises(
        SpartaError, match="the item v/0 of choice has no choices to score, or one without text"
    ):
        complete(run, frozen(run, choice=("iter_00",)))


@pytest.mark.parametrize("likelihood", [False, True])
def test_a_prompt_too_long_is_an_answer_without_grades(
    likelihood: bool, tmp_path: Path, register: Register
) -> None:
    run = begin(tmp_path, engine={"kind": "scripted", "context_length": 120})
    short, long = questions("short", 2, choices={"A": "x", "B": "y"}), "word " * 100
    items = [*short, Item("long", (Message("user", long),), choices={"A": "x", "B": "y"})]
    register(
        "quiz",
        likelihood=likelihood,
        grader=lambda item, text: {"accuracy": 1.0},
        likelihood_scorer=lambda item, logs: {"accuracy": 1.0},
        splits={"validation": items},
    )
    phase = frozen(run, quiz=("iter_00",))
    complete(run, phase)
    row = answers(run, phase)["quiz/iter_00-model1/long"]
    assert (row.grades, row.choice_logs, row.finish_reason) == ({}, (), "prompt_too_long")
    scored = scores(run, "validation", "quiz", "accuracy", ("iter_00",))
    assert {(len(each.values), each.ungraded) for each in scored.values()} == {(2, 1)}


def test_one_choice_that_does_not_fit_leaves_its_item_ungraded(tmp_path: Path, register: Register) -> None:
    run = begin(tmp_path, engine={"kind": "scripted", "context_length": 120})
    items = questions("v", 1, choices={"A": "x", "B": "y" * 110})
    register(
        "quiz",
        likelihood=True,
        likelihood_scorer=lambda item, logs: {"accuracy": 1.0},
        splits={"validation": items},
    )
    phase = frozen(run, quiz=("iter_00-model0",))
    complete(run, phase)
    [row] = answers(run, phase).values()
    assert (row.grades, row.choice_logs, row.finish_reason) == ({}, (), "prompt_too_long")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"likelihood": True}, "scores choices by their log-likelihood, which an endpoint cannot compute"),
        ({"chat_template": False}, "set evaluation.chat_template to true"),
    ],
)
def test_a_task_that_an_endpoint_cannot_do_is_refused_before_anything_starts(
    fields: dict[str, object], said: str, tmp_path: Path, register: Register
) -> None:
    run = begin(tmp_path)
    register("fine")
    register("quiz", **fields)
    phase = Evaluate("validation", {"fine": ("iter_00",), "quiz": ("iter_00",)})
    phase.check(run)
    run.recipe = adjust(run.recipe, ["engine.kind=api", "engine.api.url=http://127.0.0.1:9/v1"])
    with pytest.raises(SpartaError, match=said):
        phase.check(run)
    Evaluate("validation", {"fine": ("iter_00",)}).check(run)


def test_log_likelihoods_that_an_endpoint_cannot_compute_work_in_a_branch_of_the_run(
    tmp_path: Path, register: Register
) -> None:
    api = {"url": "http://127.0.0.1:9/v1", "load_adapters": True}
    names = ("adder", "halver", "mirror")
    models = [{"name": name, "adapter": f"embedded:{name}"} for name in names]
    run = begin(
        tmp_path, pool={"base": "embedded:base", "models": models}, engine={"kind": "api", "api": api}
    )
    register("quiz", likelihood=True)
    with pytest.raises(SpartaError) as told:
        Evaluate("validation", {"quiz": ("iter_00",)}).check(run)
    zero = run.iteration(0).root
    assert f"in a branch of the run (--resume {zero} --fork DIR --set engine.kind=hf)" in str(told.value)
    hf = adjust(run.recipe, ["engine.kind=hf"])
    branch = fork(run.state, 0, StateDir(tmp_path / "branch"), hf)
    Evaluate("validation", {"quiz": ("iter_00",)}).check(branch)


# --- what it comes to


def test_scores_are_values_by_item_and_what_is_ungraded_is_counted(
    tmp_path: Path, register: Register
) -> None:
    def some(item: Item, text: str) -> dict[str, float]:
        number = int(item.item_id[-1])
        return {"accuracy": number / 4} | ({"other": 1.0} if number else {})

    run = begin(tmp_path)
    register("quiz", grader=some, metrics=(Metric("accuracy"), Metric("other")))
    phase = frozen(run, quiz=("iter_00-model0", "iter_00-model1"))
    complete(run, phase)
    found = scores(run, "validation", "quiz", "accuracy", ("iter_00-model1",))
    assert found.keys() == {"iter_00-model1"}
    assert found["iter_00-model1"].values == {f"validation/{n}": n / 4 for n in range(5)}
    other = scores(run, "validation", "quiz", "other", ("iter_00-model0",))["iter_00-model0"]
    assert (set(other.values), other.ungraded) == ({f"validation/{n}" for n in range(1, 5)}, 1)
    with pytest.raises(SpartaError, match="quiz has no metric mc1: use one of accuracy, other"):
        scores(run, "validation", "quiz", "mc1", ("iter_00",))
    with pytest.raises(
        SpartaError, match="has no row quiz/iter_00-model2/validation/0: run the evaluation again"
    ):
        scores(run, "validation", "quiz", "accuracy", ("iter_00",))


def test_answers_to_items_that_were_not_requested_do_not_count(tmp_path: Path, register: Register) -> None:
    run = begin(tmp_path)
    register("quiz", grader=length)
    complete(run, frozen(run, quiz=("iter_00",)))
    run.recipe = adjust(run.recipe, ["evaluation.validation=2"])
    found = scores(run, "validation", "quiz", "accuracy", ("iter_00",))
    assert {len(each.values) for each in found.values()} == {2}


# --- with weights


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """M^0 of three experts of the toy pool, in this process."""
    run = begin_with_experts(tmp_path_factory.mktemp("toy"), ("adder", "halver", "mirror"), validation=40)
    yield run
    close_engine()


def test_experts_of_the_toy_pool_score_on_what_they_know(toy: Run, register: Register) -> None:
    """Generated answers and log-likelihoods, in one array with one model load."""
    held = task_named("toy").items("validation", toy.recipe.data)[:40]
    pairs = [
        Item(
            item.item_id, item.messages, choices={"wrong": "zzzz", "right": item.answer or ""}, answer="right"
        )
        for item in held
    ]
    register(
        "weighed",
        likelihood=True,
        likelihood_scorer=lambda item, logs: {"accuracy": float(logs["right"] > logs["wrong"])},
        splits={"validation": pairs},
    )
    phase = frozen(toy, toy=("iter_00",), weighed=("iter_00",))
    complete(toy, phase)
    [attempt] = AttemptDir(toy, phase, 0).all()
    [record] = AttemptDir(toy, phase, 0).records(attempt)
    assert record.loads == 1
    of_skill = {"adder": "add", "halver": "halve", "mirror": "mirror"}
    levels = {item.item_id: item.level for item in items_of(toy, "toy", "validation")}
    written = scores(toy, "validation", "toy", task_named("toy").metrics[0].name, ("iter_00",))
    weighed = scores(toy, "validation", "weighed", "accuracy", ("iter_00",))
    for name, skill in of_skill.items():
        mine = [value for item, value in written[f"iter_00-{name}"].values.items() if levels[item] == skill]
        known = [weighed[f"iter_00-{name}"].values[item] for item in levels if levels[item] == skill]
        assert len(mine) >= 3 and min(sum(mine), sum(known)) >= len(mine) - 1, (name, mine, known)

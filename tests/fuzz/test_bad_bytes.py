"""Everything that parses what others wrote takes any bytes: it reads them, or ends with one sentence that names the file; never a traceback, a hang,
or memory without bound.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.fuzzing import fuzzed, within_bounds, write
from support.mangled import mangled, mistyped
from support.store_samples import EARLIER_STATE, vote

from sparta.arena.votes import parse_score
from sparta.chat.renderer import Prompt
from sparta.cluster.attempts import TaskRecord
from sparta.cluster.slurm.job_ids import ArrayPart, Jobs, noted_jobs
from sparta.cluster.slurm.profile import load_profile
from sparta.engines.adapter_check import check_adapter
from sparta.engines.api.errors import ContextOverflow, PromptFiltered, failure_of
from sparta.engines.api.protocol import Filtered, Garbled, read_answer
from sparta.engines.base import Label, ModelRef, Request, Sampling
from sparta.engines.weight_files import tensors_in
from sparta.evaluation.holdout_log import accesses_so_far
from sparta.evaluation.summary import read_summary
from sparta.grading.letters import letter_of
from sparta.grading.numbers import number_of
from sparta.grading.rubrics import parse_grade
from sparta.recipes.engine import Api
from sparta.recipes.load import load
from sparta.store import files
from sparta.store.driver_jobs import DriverJob, DriverJobs, driver_jobs
from sparta.store.layout import StateDir
from sparta.store.manifest import read_manifest
from sparta.store.proved import Proved
from sparta.store.pruned import Pruned, read_pruned
from sparta.store.records import Combat, Pair, Response, Vote
from sparta.store.run import Run
from sparta.store.shard_lines import lines_to_mend
from sparta.store.shards import ShardReader
from sparta.store.stats import IterationStats
from sparta.studies.grid import expanded
from sparta.studies.layout import StudyDir
from sparta.studies.study_file import load_study
from sparta.tasks.user_data.items import UserItems
from sparta.tasks.user_data.sources import UserSource
from sparta.toy import ADAPTERS, BASE
from sparta.training.adapter_folder import check_trainable

SLURM = Path(__file__).parents[2] / "slurm" / "profiles"


def _first(folder: Path, pattern: str) -> bytes:
    return next(path.read_bytes() for path in sorted(folder.glob(pattern)) if path.stat().st_size)


ONE = EARLIER_STATE / "iter_01"
ROWS = {
    Vote: _first(ONE, "votes/*.jsonl"),
    Response: _first(ONE, "responses/*.jsonl"),
    Combat: (ONE / "plan.jsonl").read_bytes(),
    Pair: (ONE / "preferences.jsonl").read_bytes(),
}


@pytest.mark.parametrize("of", ROWS, ids=lambda of: of.__name__)
@fuzzed
@given(st.data())
def test_rows(tmp_path: Path, of: type[Vote], data: st.DataObject) -> None:
    lines = ROWS[of].splitlines(keepends=True)
    bad = data.draw(mangled(ROWS[of]) | mistyped(lines[0]).map(lambda line: b"".join([*lines, line, b"\n"])))
    path = write(tmp_path / "rows" / "a0-00000.jsonl", bad)
    with within_bounds(str(path)):
        list(files.read_rows(path, of))
    if hasattr(of, "key"):
        with within_bounds(str(path)):
            list(ShardReader(path.parent, of))
        with within_bounds():
            lines_to_mend(path.parent, of)


WHOLE: dict[str, tuple[bytes, Callable[[StateDir], object]]] = {
    "run.json": ((EARLIER_STATE / "run.json").read_bytes(), Run.open),
    "iter_01/MANIFEST.json": (
        (ONE / "MANIFEST.json").read_bytes(),
        lambda state: read_manifest(state.iteration(1)),
    ),
    "iter_01/pool.json": ((ONE / "pool.json").read_bytes(), lambda state: Run.open(state).pool(1)),
    "iter_01/stats.json": (
        (ONE / "stats.json").read_bytes(),
        lambda state: files.read_measured(state.iteration(1).stats, IterationStats),
    ),
    "jobs/iter_01/generate/a0-00000.json": (
        (EARLIER_STATE / "jobs/iter_01/generate/a0-00000.json").read_bytes(),
        lambda state: files.read_measured(state.jobs / "iter_01/generate/a0-00000.json", TaskRecord),
    ),
    "jobs/iter_01/generate/a0-jobs.json": (
        files.encode_json(
            Jobs([ArrayPart("sparta-x", 0, 2, "12"), ArrayPart("sparta-y", 2, 1, None, ("one",))])
        ),
        lambda state: [(jobs.names, jobs.ids, jobs.id_of(2)) for jobs in noted_jobs(Run.open(state))],
    ),
    "jobs/drivers.json": (
        files.encode_json(DriverJobs("state", [DriverJob("12", "sparta", "one")])),
        driver_jobs,
    ),
    "jobs/proved.json": (
        files.encode_json({"files": {"run.json": {"entry": "x", "signature": [["run.json", 1, 2, 3, 4]]}}}),
        Proved,
    ),
    "pruned.json": (files.encode_json(Pruned("keep: chosen", {"iter_00/x": "0" * 64})), read_pruned),
    "evals/summary.json": ((EARLIER_STATE / "evals" / "summary.json").read_bytes(), read_summary),
    "evals/looks.jsonl": ((EARLIER_STATE / "evals" / "looks.jsonl").read_bytes(), accesses_so_far),
}


@pytest.mark.parametrize("name", WHOLE)
@fuzzed
@given(st.data())
def test_files_of_a_state(tmp_path: Path, name: str, data: st.DataObject) -> None:
    sample, read = WHOLE[name]
    for needed in ("run.json", "recipe.yaml"):
        write(tmp_path / needed, (EARLIER_STATE / needed).read_bytes())
    documents = [line for line in sample.splitlines() if line] if name.endswith("l") else [sample]
    bad = data.draw(mangled(sample) | mistyped(documents[0]).map(lambda document: document + b"\n"))
    path = write(tmp_path / name, bad)
    with within_bounds(str(path)):
        read(StateDir(tmp_path))


@fuzzed
@given(st.data())
def test_recipes(tmp_path: Path, data: st.DataObject) -> None:
    sample = b"name: mine\nextends: toy\ncombats: 20\npool:\n  models:\n    - {name: a, adapter: ./x}\nengine: {kind: hf, threads: 2}\njudging: {mode: text}\n"
    path = write(tmp_path / "recipe.yaml", data.draw(mangled(sample)))
    with within_bounds("recipe"):
        load(path)


@pytest.mark.parametrize("key", ["unknown", "name", "pool", "evaluation", "pool: {models: *last}\nunknown"])
def test_a_recipe_that_would_be_gigabytes_if_its_aliases_were_written_out(tmp_path: Path, key: str) -> None:
    lines = ["x0: &x0 [a, a, a, a, a, a, a, a, a, a]"]
    for level in range(1, 10):
        lines.append(
            f"x{level}: &{'last' if level == 9 else f'x{level}'} [{', '.join([f'*x{level - 1}'] * 10)}]"
        )
    path = write(tmp_path / "recipe.yaml", "\n".join([*lines, f"{key}: *last"]).encode())
    with within_bounds("recipe"):
        load(path)


STUDY = b"""name: grid
recipe: toy
set: {iterations: 2, combats: 8}
axes:
  pool:
    small: {pool.derived: {scores: shared, best: true}}
    all: {}
  dpo.beta: [0.1, 0.5]
  seed: [0, 1]
without: [{pool: small, seed: 1}]
compare: {pool: all}
keep: chosen
"""


@fuzzed
@given(mangled(STUDY))
def test_studies(tmp_path: Path, said: bytes) -> None:
    path = write(tmp_path / "grid.yaml", said)
    with within_bounds("study"):
        expanded(load_study(path), path, StudyDir(tmp_path / "study"))


@fuzzed
@given(st.data())
def test_profiles(tmp_path: Path, data: st.DataObject) -> None:
    path = write(tmp_path / "profile.yaml", data.draw(mangled((SLURM / "a100-16.yaml").read_bytes())))
    with within_bounds("profile"):
        load_profile(path)


@fuzzed
@given(st.data())
def test_files_of_instructions(tmp_path: Path, data: st.DataObject) -> None:
    rows: tuple[dict[str, object], ...] = (
        {"id": "a", "prompt": "2+2?", "answer": "4"},
        {"messages": [{"role": "user", "content": "hm"}], "choices": {"A": "x", "B": "y"}, "answer": "A"},
    )
    sample = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    bad = data.draw(mangled(sample) | mistyped(sample.splitlines()[1]))
    path = write(tmp_path / "prompts.jsonl", bad)
    with within_bounds(str(path)):
        list(UserItems(UserSource(path, str(path), "data.train")))


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
@fuzzed
@given(st.data())
def test_adapters(tmp_path: Path, name: str, data: st.DataObject) -> None:
    source = next(iter(ADAPTERS.values()))
    for each in ("adapter_config.json", "adapter_model.safetensors"):
        write(tmp_path / "adapter" / each, (source / each).read_bytes())
    sample = (source / name).read_bytes()
    if name.endswith("json"):
        bad = data.draw(mangled(sample) | mistyped(sample))
    else:
        # The header decides; the numbers can be any.
        header = 8 + int.from_bytes(sample[:8], "little")
        bad = data.draw(mangled(sample[:header])) + sample[header:]
    write(tmp_path / "adapter" / name, bad)
    with within_bounds(str(tmp_path / "adapter")):
        check_adapter(tmp_path / "adapter", BASE)
    with within_bounds(str(tmp_path / "adapter")):
        check_trainable("ada", tmp_path / "adapter")
    if name.endswith("safetensors"):
        with within_bounds(str(tmp_path / "adapter")):
            tensors_in(tmp_path / "adapter" / name)


REPLY = json.dumps(
    {
        "choices": [{"finish_reason": "stop", "message": {"content": "Score: 7"}, "logprobs": None}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4},
    }
).encode()


REQUEST = Request("a", ModelRef("a", "b", None, "0"), Prompt((), ()), Sampling(1.0, 1.0, 0, 5), 0)


LABELLED = json.dumps(
    {"choices": [{"logprobs": {"content": [{"top_logprobs": [{"token": "7", "logprob": -0.2}]}]}}]}
).encode()


@pytest.mark.parametrize("labels", [(), (Label("7", 7), Label("8", 8))], ids=["text", "labels"])
@fuzzed
@given(st.data())
def test_replies_of_an_endpoint(labels: tuple[Label, ...], data: st.DataObject) -> None:
    sample = LABELLED if labels else REPLY
    said = data.draw(mangled(sample) | mistyped(sample)).decode(errors="replace")
    with within_bounds(), suppress(Garbled, Filtered):
        answer = read_answer(said, replace(REQUEST, labels=labels))
        assert all(0 <= share <= 1 for share in answer.label_probs)


def test_a_probability_beyond_one_is_no_answer() -> None:
    for logprob in ("1e308", "5", "0.5"):
        with pytest.raises(Garbled, match="Expected `float` <= "):
            read_answer(LABELLED.decode().replace("-0.2", logprob), replace(REQUEST, labels=(Label("7", 7),)))


REFUSAL = b"This model's context length is 4096 tokens, but you asked for 5000 (4500 in the messages, 500 in the completion). At most 12 completion tokens"


@fuzzed
@given(
    mangled(REFUSAL) | mangled(json.dumps({"error": {"message": REFUSAL.decode()}}).encode()), mangled(b"120")
)
@example(REFUSAL.replace(b"12", b"9" * 5000), b"inf")
@example(REFUSAL.replace(b"4096", b"9" * 5000), b"nan")
def test_refusals_of_an_endpoint(said: bytes, wait: bytes) -> None:
    import httpx
    from openai import APIStatusError

    headers = [(b"retry-after", wait.translate(None, b"\x00\r\n"))]
    text = said.decode(errors="replace")
    for status in (400, 429, 500):
        answer = httpx.Response(
            status, headers=headers, text=text, request=httpx.Request("POST", "http://x/v1")
        )
        with within_bounds(), suppress(ContextOverflow, PromptFiltered):
            failure = failure_of(
                APIStatusError(text, response=answer, body=None), Api(url="http://127.0.0.1:1/v1")
            )
            assert failure.wait >= 0


WORDS = (
    "Score: 7", '{"score": 8}', "The answer is (B).", "\\boxed{", "}", "not A, but B", "7/10", "1,000.5", "one hundred and", "not ", "**", "```", "...", "A", "B", " or ", "\n", "½", "10^", "-", "(", ")",
)  # fmt: skip


@pytest.mark.parametrize("times", [1, 400])
@fuzzed
@given(st.lists(st.sampled_from(WORDS) | st.text(max_size=5), min_size=1, max_size=12))
def test_texts_of_models(times: int, pieces: list[str]) -> None:
    """Also long ones: a grader may take no more than linear time."""
    text = "".join(pieces) * times
    with within_bounds():
        score = parse_score(text)
        assert score is None or 1 <= score <= 10
        parse_grade(text)
        number_of(text)
        assert letter_of(text, ["A", "B", "C"]) in (None, "A", "B", "C")


def test_the_sample_is_read(tmp_path: Path) -> None:
    """Otherwise the tests above would only see refusals."""
    path = write(tmp_path / "a0-00000.jsonl", files.encode_row(vote(1)))
    assert list(ShardReader(tmp_path, Vote)) == [vote(1)]
    assert path.exists()
    assert Run.open(StateDir(EARLIER_STATE)).pool(1)
    assert read_summary(StateDir(EARLIER_STATE)).tasks

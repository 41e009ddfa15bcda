"""Everything that parses what others wrote takes any bytes: it reads them, or ends with one sentence that names the file; never a traceback, a hang,
or memory without bound.
"""

import json
import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.mangled import mangled, mistyped
from support.store_samples import EARLIER_STATE, vote

from sparta.arena.votes import parse_score
from sparta.chat.renderer import Prompt
from sparta.cluster.attempts import TaskRecord
from sparta.cluster.slurm import cli
from sparta.cluster.slurm.profile import load_profile
from sparta.engines.adapter_check import check_adapter
from sparta.engines.api.protocol import Filtered, Garbled, read_answer
from sparta.engines.base import ModelRef, Request, Sampling
from sparta.engines.weight_files import tensors_in
from sparta.errors import SpartaError
from sparta.evaluation.holdout_log import accesses_so_far
from sparta.evaluation.summary import read_summary
from sparta.grading.letters import letter_of
from sparta.grading.numbers import number_of
from sparta.grading.rubrics import parse_grade
from sparta.recipes.load import load
from sparta.store import files
from sparta.store.layout import StateDir
from sparta.store.manifest import read_manifest
from sparta.store.records import Combat, Pair, Response, Vote
from sparta.store.run import Run
from sparta.store.shard_lines import lines_to_mend
from sparta.store.shards import ShardReader
from sparta.store.stats import IterationStats
from sparta.tasks.user_data.items import UserItems
from sparta.tasks.user_data.sources import UserSource
from sparta.toy import ADAPTERS, BASE

SECONDS = 10.0
"""Far more than any of these takes, also on a machine that is busy."""
MIB = 400.0
SLURM = Path(__file__).parents[2] / "slurm" / "profiles"

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "60"))
"""Of each test; with more than in CI they are drawn anew each time."""
fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES <= 60,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)


@contextmanager
def within_bounds(names: str = "") -> Iterator[None]:
    """A block that ends well or with a sentence that has `names` in it, soon and without much memory."""
    began, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        yield
    except SpartaError as error:
        said = str(error)
        assert names in said, said
        assert (len(said) < 5000 and said.isprintable()) or "\n" in said, said
    assert time.process_time() - began < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024 < MIB


def _write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


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
    path = _write(tmp_path / "rows" / "a0-00000.jsonl", bad)
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
    "evals/summary.json": ((EARLIER_STATE / "evals" / "summary.json").read_bytes(), read_summary),
    "evals/looks.jsonl": ((EARLIER_STATE / "evals" / "looks.jsonl").read_bytes(), accesses_so_far),
}


@pytest.mark.parametrize("name", WHOLE)
@fuzzed
@given(st.data())
def test_files_of_a_state(tmp_path: Path, name: str, data: st.DataObject) -> None:
    sample, read = WHOLE[name]
    for needed in ("run.json", "recipe.yaml"):
        _write(tmp_path / needed, (EARLIER_STATE / needed).read_bytes())
    documents = [line for line in sample.splitlines() if line] if name.endswith("l") else [sample]
    bad = data.draw(mangled(sample) | mistyped(documents[0]).map(lambda document: document + b"\n"))
    path = _write(tmp_path / name, bad)
    with within_bounds(str(path)):
        read(StateDir(tmp_path))


@fuzzed
@given(st.data())
def test_recipes(tmp_path: Path, data: st.DataObject) -> None:
    sample = b"name: mine\nextends: toy\ncombats: 20\npool:\n  models:\n    - {name: a, adapter: ./x}\nengine: {kind: hf, threads: 2}\njudging: {mode: text}\n"
    path = _write(tmp_path / "recipe.yaml", data.draw(mangled(sample)))
    with within_bounds("recipe"):
        load(path)


@pytest.mark.parametrize("key", ["unknown", "name", "pool", "evaluation", "pool: {models: *last}\nunknown"])
def test_a_recipe_that_would_be_gigabytes_if_its_aliases_were_written_out(tmp_path: Path, key: str) -> None:
    lines = ["x0: &x0 [a, a, a, a, a, a, a, a, a, a]"]
    for level in range(1, 10):
        lines.append(
            f"x{level}: &{'last' if level == 9 else f'x{level}'} [{', '.join([f'*x{level - 1}'] * 10)}]"
        )
    path = _write(tmp_path / "recipe.yaml", "\n".join([*lines, f"{key}: *last"]).encode())
    with within_bounds("recipe"):
        load(path)


@fuzzed
@given(st.data())
def test_profiles(tmp_path: Path, data: st.DataObject) -> None:
    path = _write(tmp_path / "profile.yaml", data.draw(mangled((SLURM / "a100-16.yaml").read_bytes())))
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
    path = _write(tmp_path / "prompts.jsonl", bad)
    with within_bounds(str(path)):
        list(UserItems(UserSource(path, str(path), "data.train")))


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
@fuzzed
@given(st.data())
def test_adapters(tmp_path: Path, name: str, data: st.DataObject) -> None:
    source = next(iter(ADAPTERS.values()))
    for each in ("adapter_config.json", "adapter_model.safetensors"):
        _write(tmp_path / "adapter" / each, (source / each).read_bytes())
    sample = (source / name).read_bytes()
    if name.endswith("json"):
        bad = data.draw(mangled(sample) | mistyped(sample))
    else:
        # The header decides; the numbers can be any.
        header = 8 + int.from_bytes(sample[:8], "little")
        bad = data.draw(mangled(sample[:header])) + sample[header:]
    _write(tmp_path / "adapter" / name, bad)
    with within_bounds(str(tmp_path / "adapter")):
        check_adapter(tmp_path / "adapter", BASE)
    if name.endswith("safetensors"):
        with within_bounds(str(tmp_path / "adapter")):
            tensors_in(tmp_path / "adapter" / name)


QUEUE = (
    b"1234|7|RUNNING|None|node1|sparta-x|/home/me/state\n1235|N/A|PENDING|Priority||sparta-x|/home/me/state\n"
)


@fuzzed
@given(mangled(QUEUE))
def test_words_of_squeue(monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    monkeypatch.setattr(cli, "_ask", lambda words: said.decode(errors="replace"))
    with within_bounds():
        for entry in cli.tasks_named(["sparta-x"]):
            assert entry.element >= 0
    with within_bounds():
        cli.seconds_of(said.decode(errors="replace"))


REPLY = json.dumps(
    {
        "choices": [{"finish_reason": "stop", "message": {"content": "Score: 7"}, "logprobs": None}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4},
    }
).encode()


REQUEST = Request("a", ModelRef("a", "b", None, "0"), Prompt((), ()), Sampling(1.0, 1.0, 0, 5), 0)


@fuzzed
@given(mangled(REPLY) | mistyped(REPLY))
def test_replies_of_an_endpoint(said: bytes) -> None:
    with within_bounds(), suppress(Garbled, Filtered):
        read_answer(said.decode(errors="replace"), REQUEST)


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
    path = _write(tmp_path / "a0-00000.jsonl", files.encode_row(vote(1)))
    assert list(ShardReader(tmp_path, Vote)) == [vote(1)]
    assert path.exists()
    assert Run.open(StateDir(EARLIER_STATE)).pool(1)
    assert read_summary(StateDir(EARLIER_STATE)).tasks

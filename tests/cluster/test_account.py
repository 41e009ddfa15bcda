"""The account of an iteration's time: every second of every task counts once, and the rest of what there was is idle."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from support.scripted_run import ROOT, advance, begin, wait_until, write_recipe

from sparta.cluster import attempts as attempts_module
from sparta.cluster.account import Tasks, account_of, in_order, measure
from sparta.cluster.attempts import AttemptDir, TaskRecord, TaskReporter, new_record
from sparta.cluster.gpu_time import cost_of, records_of
from sparta.cluster.gpus import gpus_of_task
from sparta.cluster.inline import Inline
from sparta.cluster.local import Local
from sparta.cluster.sharding import shard_items
from sparta.cluster.slurm.launcher import Slurm
from sparta.cluster.task import run_task
from sparta.engines.stopwatch import START, doing
from sparta.methods.registry import phase_named, phases_of
from sparta.phases.base import Phase
from sparta.phases.generate import Generate
from sparta.phases.generate_and_judge import CombatAndJudge
from sparta.phases.judge import Judge
from sparta.phases.merge import Merge
from sparta.phases.train import Train
from sparta.recipes.load import adjust
from sparta.store import files
from sparta.store.process import ProcessId
from sparta.store.run import Run
from sparta.store.shards import shard_file
from sparta.store.stats import IterationStats, TimeAccount

NOW = 1_700_000_000.0


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with a plan for iteration 1, whose own tasks do not count here."""
    run = begin(tmp_path_factory.mktemp("run"))
    advance(run, 1, upto="plan")
    return run


@pytest.fixture(scope="module")
def on_two(planned: Run) -> Run:
    """The same, with bases that take two GPUs; it is never executed."""
    recipe = adjust(planned.recipe, ["engine.kind=vllm", "engine.vllm.tensor_parallel=2"])
    return Run(planned.state, recipe, planned.info)


@contextmanager
def assigned(
    run: Run, phase: Phase, shards: int, gpus: int = 0, at_once: int = 0, **more: Any
) -> Iterator[AttemptDir]:
    """An attempt that was assigned at NOW and exists as long as the block."""
    attempts = AttemptDir(run, phase, 1)
    attempts.assign(
        shard_items(phase.work(run, 1), shards), "local", began=NOW, gpus=gpus, at_once=at_once, **more
    )
    [number] = attempts.numbers
    path = attempts.folder / f"a{number}.json"
    attempt = files.read_json(path, attempts_module.Attempt)
    files.write_json(path, msgspec.structs.replace(attempt, submitted=NOW))
    try:
        yield attempts
    finally:
        files.remove(attempts.folder)


def says(attempts: AttemptDir, shard: int, began: float, ended: float | None, **more: Any) -> TaskRecord:
    """Write the record of a task. began, ended: seconds after NOW; without an end it was killed."""
    fields = {
        "outcome": "running" if ended is None else "done",
        "ended": None if ended is None else NOW + ended,
        "gpus": "0",
        "doing": attempts.phase.time_part,
        **more,
    }
    record = TaskRecord(shard, ProcessId(1, "elsewhere", 1), "elsewhere", NOW + began, 6, **fields)
    files.write_json(attempts.record_file(0, shard), record)
    return record


def account(run: Run, *places: AttemptDir) -> TimeAccount:
    found = account_of(run, [Tasks(attempts, records_of(attempts)) for attempts in places])
    assert found is not None
    return found


tasks = st.lists(
    st.tuples(
        st.floats(0, 1000),
        st.floats(0, 1000),
        st.dictionaries(st.sampled_from(["start", "start weights", "judge"]), st.floats(0, 800), max_size=3),
        st.sampled_from(["0", "0,1", None]),
        st.floats(0, 50),
    ),
    min_size=1,
    max_size=6,
)


@given(tasks, tasks, st.integers(0, 8))
@hypothesis_settings(max_examples=60, deadline=None)
def test_the_parts_and_idle_add_up_to_all_gpus_times_the_clock(
    on_two: Run, generating: list[Any], judging: list[Any], gpus: int
) -> None:
    with (
        assigned(on_two, Generate(), 6, gpus) as generate,
        assigned(on_two, Judge(), 6, gpus) as judge,
    ):
        for attempts, described in ((generate, generating), (judge, judging)):
            for shard, (began, lasts, parts, held, spent) in enumerate(described):
                says(attempts, shard, began + 50, began + 50 + lasts, parts=parts, gpus=held, spent=spent)
        found = account(on_two, generate, judge)
    assert sum(found.parts.values()) + found.idle == pytest.approx(found.places * found.seconds, abs=1e-3)
    assert found.idle >= 0 and 0 <= found.idle_share <= 1 and all(part > 0 for part in found.parts.values())
    held = [
        (len(gpus_named.split(",")) if gpus_named else 0, lasts + spent)
        for _, lasts, _, gpus_named, spent in (*generating, *judging)
    ]
    on_gpus = any(count for count, _ in held)
    used = sum(seconds * (count if on_gpus else 1) for count, seconds in held)
    assert (found.unit, found.used) == ("GPU" if on_gpus else "task", pytest.approx(used, abs=1e-3))


def test_all_gpus_of_the_launch_count_whether_they_had_a_task_or_not(on_two: Run) -> None:
    with assigned(on_two, Generate(), 2, gpus=16) as generate, assigned(on_two, Judge(), 2) as judge:
        says(generate, 0, 2, 12, parts={"start weights": 3.0, "start": 1.0})
        says(generate, 1, 2, 8)
        says(judge, 0, 12, 22, gpus="1,2")
        found = account(on_two, generate, judge)
    assert (found.unit, found.places, found.seconds) == ("GPU", 16, pytest.approx(20))
    assert found.parts == pytest.approx({"start weights": 3, "start": 1, "generate": 6 + 6, "judge": 20})
    assert (found.used, found.idle, found.idle_share) == pytest.approx((36, 320 - 36, 1 - 36 / 320))


def test_a_task_that_sees_more_gpus_than_it_works_on_leaves_the_rest_idle(planned: Run, on_two: Run) -> None:
    for run, works_on in ((planned, 1), (on_two, 2)):
        with assigned(run, Generate(), 1, gpus=4) as generate:
            says(generate, 0, 0, 10, gpus="0,1,2,3")
            found = account(run, generate)
        assert (found.parts, found.places) == ({"generate": pytest.approx(10 * works_on)}, 4)
        assert found.idle_share == pytest.approx(1 - works_on / 4)


def test_parts_come_in_the_order_of_the_phases_also_from_a_file(planned: Run) -> None:
    parts = {"train": 1.0, "steps": 1.0, "judge": 1.0, "start": 1.0, "train set-up": 1.0, "generate": 1.0}
    phases = phases_of(planned.recipe, 1)
    ordered = in_order(TimeAccount("task", 1, 6.0, parts, 0.0), phases)
    assert list(ordered.parts) == ["start", "generate", "judge", "train set-up", "train", "steps"]
    fused = [CombatAndJudge() if phase.name == "generate" else phase for phase in phases]
    assert list(in_order(TimeAccount("task", 1, 6.0, parts, 0.0), fused).parts) == list(ordered.parts)


def test_time_in_which_no_launch_worked_does_not_count(planned: Run) -> None:
    """The driver was stopped at 20, and another one turned to judging at 5,000."""
    with assigned(planned, Generate(), 1, gpus=1) as generate, assigned(planned, Judge(), 1, gpus=1) as judge:
        says(generate, 0, 0, 20)
        path = judge.folder / "a0.json"
        attempt = files.read_json(path, attempts_module.Attempt)
        files.write_json(path, msgspec.structs.replace(attempt, began=NOW + 5000, submitted=NOW + 5003))
        says(judge, 0, 5010, 5040)
        found = account(planned, generate, judge)
    assert found.seconds == pytest.approx(20 + 40)
    assert found.parts == pytest.approx({"generate": 20, "judge": 30})
    assert found.idle == pytest.approx(10), "its own work before the task, and the queue"


def test_steps_count_where_a_place_is_a_task_and_are_idle_time_of_gpus(planned: Run) -> None:
    with (
        assigned(planned, Generate(), 1, gpus=1, at_once=2) as generate,
        assigned(planned, Merge(), 1, at_once=1) as merge,
    ):
        says(generate, 0, 0, 20)
        says(merge, 0, 20, 25, gpus=None)
        on_gpus = account(planned, generate, merge)
        says(generate, 0, 0, 20, gpus=None)
        on_cpus = account(planned, generate, merge)
    assert (on_gpus.parts, on_gpus.idle) == ({"generate": pytest.approx(20)}, pytest.approx(5))
    assert on_cpus.parts == pytest.approx({"generate": 20, "steps": 5})
    assert (on_cpus.unit, on_cpus.places, on_cpus.idle) == ("task", 2, pytest.approx(2 * 25 - 25))


def test_a_killed_task_counts_up_to_its_last_sign_of_life_for_what_it_was_doing(planned: Run) -> None:
    with assigned(planned, Generate(), 2, gpus=2) as generate:
        says(generate, 0, 0, None, parts={"generate": 1.0}, doing=START)
        says(generate, 1, 0, None, parts={"start weights": 4.0})
        for shard, seen in ((0, 90), (1, 30)):
            path = generate.record_file(0, shard)
            os.utime(path, (NOW + seen, NOW + seen))
        rows = shard_file(planned.iteration(1).responses, 0, 1)
        rows.parent.mkdir(exist_ok=True)
        rows.write_text("")
        os.utime(rows, (NOW + 44, NOW + 44))
        found, cost = account(planned, generate), cost_of(planned, generate)
        rows.unlink()
    assert found.parts == pytest.approx({"start": 89, "start weights": 4, "generate": 1 + 40})
    assert found.idle == pytest.approx(2 * 90 - (90 + 44))
    assert cost.parts == pytest.approx(found.parts) and cost.busy == pytest.approx(134)


def test_a_restarted_task_keeps_the_time_of_its_earlier_starts(tmp_path: Path) -> None:
    path = tmp_path / "a0-00000.json"
    first = msgspec.structs.replace(
        new_record(0, 5, doing="judge"),
        started=NOW,
        parts={"start weights": 30.0, "judge": 5.0},
        doing="judge",
        ended=NOW + 100,
        outcome="requeued",
    )
    second = new_record(0, 5, first, doing="judge")
    assert (second.spent, second.parts) == (100, {"start weights": 30, "judge": 70})
    report = TaskReporter(path, second)
    report.started()
    report.spends({"judge": 1.0, "start weights": 2.0}, "judge", loads=1, load_seconds=2.0)
    noted = files.read_json(path, TaskRecord)
    assert noted.parts == {"start weights": 32, "judge": 71} and (noted.loads, noted.load_seconds) == (1, 2)
    whole = noted.parts_until(noted.started + 10, "judge")
    assert whole == pytest.approx({"start weights": 32, "judge": 78}) and sum(
        whole.values()
    ) == pytest.approx(110)


def test_the_earlier_start_of_a_record_without_parts_is_the_phase_s_own_time(tmp_path: Path) -> None:
    """Earlier versions recorded no parts; a part without a name would be a column of its own."""
    first = msgspec.structs.replace(
        new_record(0, 5), started=NOW, ended=NOW + 100, outcome="requeued", spent=20.0
    )
    assert first.doing == ""
    assert new_record(0, 5, first, doing="judge").parts == {"judge": 120}


def test_a_task_touches_its_record_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts_module, "BEAT_SECONDS", 0.05)
    path = tmp_path / "a0-00000.json"
    report = TaskReporter(path, new_record(0, 5))
    report.started()
    os.utime(path, (NOW, NOW))
    with report.beating():
        wait_until(lambda: path.stat().st_mtime > NOW + 1)
    os.utime(path, (NOW, NOW))
    with pytest.raises(AssertionError):
        wait_until(lambda: path.stat().st_mtime > NOW + 1, 0.5)


def test_one_engine_for_both_is_started_once_and_its_time_is_shared_as_the_rows_say(planned: Run) -> None:
    combats, iteration = CombatAndJudge(), planned.iteration(1)
    with assigned(planned, combats, 1, gpus=1) as attempts:
        says(attempts, 0, 0, 100, parts={"start weights": 10.0, "start": 10.0})
        before = account(planned, attempts)
        for folder, seconds in ((iteration.responses, (1.0, 3.0)), (iteration.votes, (5.0, 7.0))):
            folder.mkdir(exist_ok=True)
            lines = [json.dumps({"seconds": each, "text": "x"}) for each in seconds]
            # The last line is torn, and another attempt's rows are not this one's time.
            shard_file(folder, 0, 0).write_text("\n".join([*lines, '{"secon']))
            shard_file(folder, 3, 0).write_text('{"seconds": 1000.0}\n')
        found = account(planned, attempts)
        for folder in (iteration.responses, iteration.votes):
            files.remove(folder)
    assert before.parts == pytest.approx({"start weights": 10, "start": 10, "generate": 80})
    assert found.parts == pytest.approx({"start weights": 10, "start": 10, "generate": 20, "judge": 60})


def test_records_of_earlier_versions_count_their_loads_as_starts(planned: Run) -> None:
    old = {"doing": "", "loads": 1}
    with assigned(planned, Generate(), 1) as generate, assigned(planned, Train(), 2) as train:
        says(generate, 0, 0, 50, load_seconds=20.0, **old)
        says(train, 0, 50, 90, load_seconds=8.0, **old)
        says(train, 1, 50, 70, load_seconds=0.0, **old)
        found = account(planned, generate, train)
    assert found.parts == pytest.approx({"start": 20, "generate": 30, "train set-up": 8, "train": 52})


def test_an_iteration_measures_its_account_and_older_statistics_have_none(tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 1)
    measure(run, phases_of(run.recipe, 1), 1)
    path = run.iteration(1).stats
    stats = files.read_json(path, IterationStats)
    assert stats.account is not None and (stats.account.unit, stats.account.places) == ("task", 1)
    assert stats.account.parts.keys() >= {"generate", "judge", "train set-up", "train", "steps"}
    assert stats.account.used + stats.account.idle == pytest.approx(stats.account.whole)
    assert stats.gpu_seconds == 0 and stats.gpu_idle is None
    assert sum(stats.phases["train"].parts.values()) == pytest.approx(stats.phases["train"].busy)
    tree = json.loads(path.read_text())
    del tree["account"], tree["phases"]["train"]["parts"]
    path.write_text(json.dumps(tree))
    older = files.read_json(path, IterationStats)
    assert older.account is None and older.phases["train"].parts == {}


def test_a_task_records_what_it_does(planned: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[str] = []
    with assigned(planned, Generate(), 1) as attempts:

        def execute(*_: Any) -> None:
            with doing(START):
                noted.extend(record.doing for record in attempts.records(attempts.all()[0]))

        monkeypatch.setattr(Generate, "execute", execute)
        run_task(planned, attempts.all()[0].piece, 0, lambda items: None)
        [record] = attempts.records(attempts.all()[0])
    assert noted == [START]
    assert record.parts.keys() == {"generate", START} and record.doing == "generate"
    assert record.ended is not None
    assert sum(record.parts_until(record.ended, "generate").values()) == pytest.approx(
        record.ended - record.started
    )


def test_a_task_killed_while_its_engine_starts_is_in_the_account(tmp_path: Path) -> None:
    """With SIGKILL, in its own process: nothing but its record and the time of that file is left."""
    run = begin(tmp_path)
    advance(run, 1, upto="plan")
    attempts = AttemptDir(run, Generate(), 1)
    attempts.assign(shard_items(Generate().missing(run, 1), 1), "local")
    program = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from sparta.cluster import attempts
from sparta.cluster.task import run_task
from sparta.engines.scripted import ScriptedEngine
from sparta.engines.stopwatch import START, doing
from sparta.store.layout import StateDir
from sparta.store.run import Run
attempts.BEAT_SECONDS = 0.1
def start(self, models):
    with doing(START):
        print("starting", flush=True)
        time.sleep(600)
ScriptedEngine.expect = start
run = Run.open(StateDir(Path({str(run.state.root)!r})))
run_task(run, attempts.Piece("generate", 1, 0), 0, lambda items: None)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "starting\n"
    started = files.read_json(attempts.record_file(0, 0), TaskRecord).started
    wait_until(lambda: attempts.record_file(0, 0).stat().st_mtime > started + 0.5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    found = account_of(run, [Tasks(attempts, records_of(attempts))])
    assert found is not None and 0.3 < found.parts[START] < 60


# --- the places


@pytest.mark.parametrize(
    ("settings", "gpus"), [([], 4), (["cluster.at_once=2"], 2), (["cluster.at_once=9"], 4)]
)
def test_on_one_machine_all_its_gpus_count_or_those_that_tasks_may_hold(
    settings: list[str], gpus: int, planned: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    run = Run(planned.state, adjust(planned.recipe, settings), planned.info)
    assert (Local(run).gpus(Generate()), Inline(run).gpus(Generate())) == (gpus, 4)


@pytest.mark.parametrize(
    ("profile", "settings", "gpus"),
    [
        ("", [], 16),
        ("at_once: 3", [], 3),
        ("at_once: 5\ngpu: {gpus: 4}", [], 16),
        ("", ["cluster.at_once=2"], 2),
    ],
)
def test_on_slurm_all_gpus_of_the_profile_count_or_those_that_tasks_may_hold(
    profile: str, settings: list[str], gpus: int, planned: Run, tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: mine\nnodes: 4\ngpus_per_node: 4\n{profile}\n")
    recipe = adjust(planned.recipe, [*settings, f"cluster.profile={path}"])
    assert Slurm(Run(planned.state, recipe, planned.info)).gpus(Generate()) == gpus


@pytest.mark.parametrize(
    ("phase", "settings", "gpus"),
    [
        ("generate", [], ("0", "1", "2", "3")),
        ("merge", [], ()),
        ("generate", ["engine.device=cpu"], ()),
    ],
)
def test_a_task_notes_the_gpus_of_its_process_if_it_works_on_any(
    phase: str, settings: list[str], gpus: tuple[str, ...], planned: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    run = Run(planned.state, adjust(planned.recipe, settings), planned.info)
    assert tuple(gpus_of_task(run, phase_named(phase))) == gpus


def test_a_task_on_a_small_base_works_on_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sparta.recipes.load import load

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    toy, scripted = load("toy"), load(write_recipe(tmp_path))
    run = begin(tmp_path / "run")
    for recipe, gpus in ((toy, ()), (scripted, ("0",))):
        run.recipe = recipe
        assert tuple(gpus_of_task(run, Generate())) == gpus

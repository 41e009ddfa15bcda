"""Status of a run from its state: while it runs, after a crash, and at the end."""

import json
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.scripted_run import Launched, advance, begin, typed, wait_until, write_recipe

from sparta.cluster.account import measure
from sparta.cluster.attempts import AttemptDir, TaskRecord
from sparta.cluster.gpu_time import cost_of
from sparta.cluster.sharding import shard_items
from sparta.cluster.slurm import cli
from sparta.cluster.slurm.cli import QueueEntry
from sparta.cluster.slurm.detached import Chain, chain_file
from sparta.cluster.slurm.job_ids import ArrayPart, Jobs, note_jobs
from sparta.cluster.task import run_task
from sparta.engines import fallbacks
from sparta.errors import SpartaError, note
from sparta.methods.registry import phase_named, phases_of
from sparta.phases.generate import Generate
from sparta.phases.generate_and_judge import CombatAndJudge
from sparta.phases.judge import Judge
from sparta.status.collect import Status, status_of
from sparta.status.forecast import seconds_per_iteration
from sparta.status.phase_status import PhaseStatus
from sparta.status.tables import as_json, compressed, show_status
from sparta.store import files
from sparta.store.failure import note_failure
from sparta.store.layout import StateDir
from sparta.store.process import ProcessId
from sparta.store.run import Run
from sparta.store.shards import LineCounter
from sparta.store.stats import IterationStats


def phase(status: Status, t: int, name: str) -> PhaseStatus:
    return next(
        entry
        for iteration in status.iterations
        if iteration.t == t
        for entry in iteration.phases
        if entry.name == name
    )


def test_a_run_that_has_only_begun_is_stopped(tmp_path: Path) -> None:
    status = status_of(begin(tmp_path))
    assert (status.state, status.exit_code, status.iterations, status.planned) == ("stopped", 3, [], 3)
    assert (status.standing_after, status.driver, status.failure) == (0, None, None)


def test_a_finished_run_is_done(tmp_path: Path) -> None:
    run = begin(tmp_path, iterations=1)
    advance(run, 1)
    status = status_of(run)
    assert (status.state, status.exit_code, status.seconds_left) == ("done", 0, None)
    assert [phase(status, 1, name).done for name in ("generate", "judge", "train")] == [24, 48, 4]
    assert status.standing_after == 1


def test_a_run_that_stopped_in_the_middle_says_how_far_it_came(tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 1, upto="generate")
    [path] = run.iteration(1).responses.iterdir()
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:7]))
    status = status_of(run)
    assert (status.state, status.exit_code) == ("stopped", 3)
    generate = phase(status, 1, "generate")
    assert (generate.done, generate.total, generate.running) == (7, 24, 0)
    assert (phase(status, 1, "judge").done, phase(status, 1, "judge").total) == (0, 48)
    assert phase(status, 1, "commit").done == 0


def test_an_iteration_that_has_no_plan_yet_has_no_totals(tmp_path: Path) -> None:
    run = begin(tmp_path)
    run.iteration(1).root.mkdir()
    assert phase(status_of(run), 1, "generate").total is None


def test_a_launch_that_ended_with_an_error_is_failed_until_another_continues(tmp_path: Path) -> None:
    run = begin(tmp_path)
    note_failure(run.state, "the disk is full")
    status = status_of(run)
    assert (status.state, status.exit_code) == ("failed", 1)
    assert status.failure is not None and status.failure.said == "the disk is full"
    assert typed("launch", "--state", run.state.root).returncode == 0
    assert status_of(Run.open(run.state)).state == "done"


def test_a_state_without_a_committed_iteration_is_named(tmp_path: Path) -> None:
    run = begin(tmp_path)
    run.iteration(0).manifest.unlink()
    with pytest.raises(SpartaError, match="no committed iteration"):
        status_of(run)


def test_an_iteration_that_was_never_measured_does_not_count_as_instant(tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 1)
    assert seconds_per_iteration(run) is None


def test_looking_writes_nothing(tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 1, upto="judge")
    before = {path: path.stat().st_mtime_ns for path in run.state.root.rglob("*")}
    status_of(run)
    assert {path: path.stat().st_mtime_ns for path in run.state.root.rglob("*")} == before


@pytest.mark.parametrize("cluster", ["inline", "local"])
def test_the_command_sees_a_run_start_crash_and_end(cluster: str, tmp_path: Path, launched: Launched) -> None:
    engine = {"kind": "scripted", "scripted": {"delay": 0.2}}
    recipe = write_recipe(tmp_path, iterations=1, engine=engine, combats=20)
    arguments = ("--recipe", recipe, "--state", tmp_path / "state", "--cluster", cluster)
    state = StateDir(tmp_path / "state")
    driver = launched(*arguments)
    wait_until(lambda: LineCounter(state.iteration(1).responses).fresh() >= 4)
    seen = typed("status", state.root, "--json")
    assert seen.returncode == 3, seen.stderr
    status = json.loads(seen.stdout)
    assert (status["state"], status["exit_code"]) == ("running", 3)
    assert str(driver.pid) in status["driver"]
    assert 4 <= phase_of(status, "generate")["done"] < 40 and phase_of(status, "generate")["running"] >= 1
    people = typed("status", state.root)
    assert people.returncode == 3 and "running" in people.stdout and str(driver.pid) in people.stdout

    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    seen = typed("status", state.root, "--json")
    status = json.loads(seen.stdout)
    assert (seen.returncode, status["state"], status["driver"]) == (3, "stopped", None)
    assert phase_of(status, "generate")["running"] == 0
    people = typed("status", state.root)
    assert f"continue with: python jobs/launch.py --state {state.root}" in people.stdout

    assert typed("launch", "--state", state.root, "--set", "engine.scripted.delay=0").returncode == 0
    seen = typed("status", state.root, "--json")
    assert (seen.returncode, json.loads(seen.stdout)["state"]) == (0, "done")


def phase_of(status: dict, name: str) -> dict:
    return next(entry for entry in status["iterations"][0]["phases"] if entry["name"] == name)


def test_the_command_says_that_there_is_no_run(tmp_path: Path) -> None:
    done = typed("status", tmp_path)
    assert done.returncode == 1 and "holds no run" in done.stderr and "Traceback" not in done.stderr


@dataclass
class FakeQueue:
    """What squeue would answer."""

    code: Path
    tasks: list[QueueEntry]
    asked: int = 0

    def __call__(self, names: Iterable[str], clusters: object = None) -> list[QueueEntry]:
        self.asked += 1
        wanted = set(names)
        return [task for task in self.tasks if task.name in wanted]

    def has(
        self, state: str, element: int = 0, reason: str = "", job: str = "7", name: str = "array"
    ) -> None:
        self.code.mkdir(parents=True, exist_ok=True)
        node = "" if state == "PENDING" else f"node{element + 1}"
        self.tasks.append(
            QueueEntry(name, f"{job}_{element}", element, state, reason, node, str(self.code / "copy"))
        )


@pytest.fixture
def squeue(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeQueue:
    queue = FakeQueue(tmp_path / "state" / "jobs" / "code", [])
    monkeypatch.setattr(cli, "tasks_named", queue)
    monkeypatch.setattr(cli, "installed", lambda: True)
    monkeypatch.setattr(cli, "states_in_accounting", lambda jobs: {})
    return queue


@pytest.fixture
def dealt(tmp_path: Path) -> tuple[Run, AttemptDir]:
    """A run whose generate of iteration 1 was dealt to four SLURM tasks, in job 7."""
    run = begin(tmp_path)
    advance(run, 1, upto="plan")
    attempts = AttemptDir(run, Generate(), 1)
    attempts.assign(shard_items(Generate().missing(run, 1), 4), "slurm")
    note_jobs([(attempts, 0)], Jobs([ArrayPart("array", 0, 4, "7")]))
    return run, attempts


NOW = 1_700_000_000.0


def says(attempts: AttemptDir, shard: int, outcome: str = "running", **more: Any) -> TaskRecord:
    """Write the record of a task that began at NOW on node<shard + 1> of another machine."""
    record = TaskRecord(
        **{
            "shard": shard,
            "process": ProcessId(1, "elsewhere", 1),
            "host": "elsewhere",
            "started": NOW,
            "items": 6,
            "outcome": outcome,
            "ended": NOW + 10 if outcome != "running" else None,
            "node": f"node{shard + 1}",
            "gpus": "0",
            **more,
        }
    )
    files.write_json(attempts.record_file(0, shard), record)
    return record


def test_tasks_in_slurm_are_queued_or_running_and_squeue_is_called_once(
    dealt: tuple[Run, AttemptDir], squeue: FakeQueue
) -> None:
    run, attempts = dealt
    for shard in (0, 1):
        says(attempts, shard)
        squeue.has("RUNNING", shard)
    for shard in (2, 3):
        squeue.has("PENDING", shard, "Priority")
    status = status_of(run)
    generate = phase(status, 1, "generate")
    assert (generate.running, generate.queued, generate.failed, generate.nodes) == (
        2,
        2,
        0,
        ["node1", "node2"],
    )
    assert generate.waiting == "2 tasks wait (Priority)"
    assert (status.state, status.exit_code, squeue.asked) == ("running", 3, 1)
    assert status.detached is not None and "without a driver, nothing will start" in status.detached


def test_reasons_that_the_suite_itself_causes_are_not_shown(
    dealt: tuple[Run, AttemptDir], squeue: FakeQueue
) -> None:
    run, _ = dealt
    squeue.has("PENDING", 0, "JobArrayTaskLimit")
    squeue.has("PENDING", 1, "BadConstraints")
    assert (
        phase(status_of(run), 1, "generate").waiting
        == "1 task waits (BadConstraints); BadConstraints: no node fits what it asks for"
    )


def test_requeues_count_those_that_wait_to_start_again(
    dealt: tuple[Run, AttemptDir], squeue: FakeQueue
) -> None:
    run, attempts = dealt
    says(attempts, 0, requeues=2)
    says(attempts, 1, "requeued")
    squeue.has("RUNNING", 0)
    squeue.has("PENDING", 1, "BeginTime")
    generate = phase(status_of(run), 1, "generate")
    assert (generate.requeued, generate.running, generate.queued) == (3, 1, 1)


def test_a_task_gone_from_slurm_without_a_final_record_is_lost(
    dealt: tuple[Run, AttemptDir], squeue: FakeQueue
) -> None:
    run, attempts = dealt
    says(attempts, 0)
    says(attempts, 1, "done")
    says(attempts, 2, "failed", error="ValueError: no")
    squeue.has("CANCELLED", 0)
    status = status_of(run)
    generate = phase(status, 1, "generate")
    assert (generate.failed, generate.lost, generate.running, generate.queued) == (2, 1, 0, 0)
    assert status.state == "stopped"  # its driver was killed; nobody noted a failure


def test_without_an_answer_of_slurm_the_files_decide_and_status_says_so(
    dealt: tuple[Run, AttemptDir], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, attempts = dealt
    says(attempts, 0)

    def silent(names: Iterable[str], clusters: object) -> list[QueueEntry]:
        raise cli.SlurmUnavailable("Unable to contact slurm controller")

    monkeypatch.setattr(cli, "tasks_named", silent)
    monkeypatch.setattr(cli, "installed", lambda: True)
    status = status_of(run)
    generate = phase(status, 1, "generate")
    assert (generate.running, generate.queued, status.silence) == (1, 3, "Unable to contact slurm controller")
    show_status(status, run.state.root)
    assert "SLURM did not answer (Unable to contact slurm controller)" in capsys.readouterr().out


def test_without_slurm_nothing_is_asked(
    dealt: tuple[Run, AttemptDir], squeue: FakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "installed", lambda: False)
    status = status_of(dealt[0])
    assert squeue.asked == 0 and status.silence is not None and phase(status, 1, "generate").queued == 4


def test_a_run_that_never_used_slurm_does_not_ask_it(tmp_path: Path, squeue: FakeQueue) -> None:
    run = begin(tmp_path)
    advance(run, 1)
    assert status_of(run).silence is None and squeue.asked == 0


def chained(run: Run, *, whole: bool = True) -> None:
    files.write_json(
        chain_file(run.state),
        Chain([("generate 1", ["7"]), ("judge 1", ["8"])], ["array", "later"], whole, last=3, submitted=NOW),
    )


def test_jobs_of_a_detached_launch_without_keys_are_queued(
    dealt: tuple[Run, AttemptDir], squeue: FakeQueue
) -> None:
    run, _ = dealt
    chained(run)
    note_jobs([(AttemptDir(run, Judge(), 2), 0)], Jobs([ArrayPart("later", 0, 2, "8")]))
    for shard in range(4):
        squeue.has("PENDING", shard)
    for shard in range(2):
        squeue.has("PENDING", shard, "Dependency", job="8", name="later")
    status = status_of(run)
    assert (status.state, status.exit_code) == ("running", 3)
    assert (
        status.detached is not None and "jobs 7 to 8" in status.detached and "iteration 3" in status.detached
    )
    judge = phase(status, 2, "judge")
    assert (judge.queued, judge.total, judge.waiting) == (2, None, "")


def test_a_detached_launch_that_lost_a_task_has_failed_and_says_which(
    dealt: tuple[Run, AttemptDir], squeue: FakeQueue, capsys: pytest.CaptureFixture[str]
) -> None:
    run, attempts = dealt
    chained(run)
    says(attempts, 0, "done")
    says(attempts, 1, log="7_1_0_log.out")
    attempts.logs.mkdir()
    (attempts.logs / "7_0_0_log.out").write_text("fine\n")
    (attempts.logs / "7_1_0_log.out").write_text("its last words\n")
    squeue.has("NODE_FAIL", 1)
    status = status_of(run)
    assert (status.state, status.exit_code) == ("failed", 1)
    [ended] = status.ended
    assert (ended.phase, ended.t, ended.shard, ended.node, ended.job) == ("generate", 1, 1, "node2", "7_1")
    assert ended.why == "node_fail" and status.log == "  its last words"
    show_status(status, run.state.root)
    out = capsys.readouterr().out
    assert "generate of iteration 1, shard 1 on node2 (job 7_1): node_fail" in out and "its last words" in out


def test_the_end_of_a_job_that_squeue_dropped_is_read_from_the_log(
    dealt: tuple[Run, AttemptDir], squeue: FakeQueue
) -> None:
    run, attempts = dealt
    chained(run)
    says(attempts, 3, log="7_3_0_log.out")
    attempts.logs.mkdir()
    (attempts.logs / "7_3_0_log.out").write_text("slurmstepd-node4: error: *** JOB 9 CANCELLED ***\nmore\n")
    [ended] = status_of(run).ended
    assert "gone from SLURM's queue" in ended.why and "*** JOB 9 CANCELLED ***" in ended.why


def test_a_failing_task_of_a_detached_launch_is_shown_while_others_go_on(
    dealt: tuple[Run, AttemptDir], squeue: FakeQueue
) -> None:
    run, attempts = dealt
    chained(run)
    says(attempts, 0, "failed", said="the disk is full", error="SpartaError: the disk is full")
    says(attempts, 1)
    squeue.has("RUNNING", 1)
    note_failure(run.state, "generate of iteration 1, shard 0: the disk is full")
    status = status_of(run)
    assert status.state == "running" and status.failure is not None
    assert [(task.shard, task.node, task.why) for task in status.ended] == [(0, "node1", "the disk is full")]
    squeue.tasks.clear()
    says(attempts, 1, "done")
    assert status_of(run).state == "failed"


def test_a_chain_whose_submission_was_interrupted_is_stopped(
    dealt: tuple[Run, AttemptDir], squeue: FakeQueue
) -> None:
    run, _ = dealt
    chained(run, whole=False)
    squeue.has("PENDING", 0, "JobHeldUser")
    assert status_of(run).state == "stopped"


def combats_in_job_9(run: Run) -> AttemptDir:
    """What an earlier launch, with combats and judging in one phase, submitted of iteration 1, where today's has submitted nothing."""
    attempts = AttemptDir(run, CombatAndJudge(), 1)
    attempts.assign(shard_items(CombatAndJudge().missing(run, 1), 2), "slurm")
    note_jobs([(attempts, 0)], Jobs([ArrayPart("fused", 0, 2, "9")]))
    return attempts


def test_tasks_and_jobs_of_an_alternative_phase_are_shown_where_there_are_any(
    tmp_path: Path, squeue: FakeQueue, capsys: pytest.CaptureFixture[str]
) -> None:
    run = begin(tmp_path)
    advance(run, 1, upto="plan")
    attempts = combats_in_job_9(run)
    note_jobs([(AttemptDir(run, CombatAndJudge(), 2), 0)], Jobs([ArrayPart("next", 0, 2, "10")]))
    says(attempts, 0)
    squeue.has("RUNNING", 0, job="9", name="fused")
    squeue.has("PENDING", 1, "Priority", job="9", name="fused")
    squeue.has("PENDING", 0, "Dependency", job="10", name="next")
    status = status_of(run)
    assert (status.state, [entry.t for entry in status.iterations]) == ("running", [1, 2])
    combat = phase(status, 1, "combat")
    assert (combat.running, combat.queued, combat.jobs, combat.total) == (1, 1, ["9"], 72)
    assert phase(status, 2, "combat").queued == 1
    show_status(status, run.state.root)
    assert "combat" in capsys.readouterr().out

    advance(begin(other := tmp_path / "other"), 1)
    said = typed("status", other / "state").stdout
    assert "generate" in said and "combat" not in said.partition("tasks, model loads")[0]
    assert "iteration 1: 12 preference pairs from 12 combats (100 %)" in said


def test_a_detached_launch_of_an_alternative_phase_that_lost_a_task_says_which(
    tmp_path: Path, squeue: FakeQueue
) -> None:
    run = begin(tmp_path)
    advance(run, 1, upto="plan")
    attempts = combats_in_job_9(run)
    files.write_json(chain_file(run.state), Chain([("combat 1", ["9"])], ["fused"], True, 3, NOW))
    says(attempts, 0, "done")
    says(attempts, 1)
    squeue.has("NODE_FAIL", 1, job="9", name="fused")
    status = status_of(run)
    assert status.state == "failed"
    assert [(task.phase, task.shard, task.why) for task in status.ended] == [("combat", 1, "node_fail")]


def test_alternative_phases_are_measured_and_shown_beside_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = begin(tmp_path, iterations=2)
    advance(run, 1)
    measure(run, phases_of(run.recipe, 1), 1)
    assert "combat" not in files.read_json(run.iteration(1).stats, IterationStats).phases
    advance(run, 2, upto="plan")
    attempts = AttemptDir(run, CombatAndJudge(), 2)
    shards = shard_items(CombatAndJudge().missing(run, 2), 2)
    attempts.assign(shards, "local")
    CombatAndJudge().perform(run, 2, [item.key for item in shards[0]], 0, 0, lambda items: None)
    says(attempts, 0, "done", loads=5, ended=NOW + 20)
    advance(run, 2)
    measure(run, phases_of(run.recipe, 2), 2)
    stats = files.read_json(run.iteration(2).stats, IterationStats)
    assert (stats.phases["combat"].loads, stats.phases["combat"].gpu_seconds) == (5, 20)
    assert stats.gpu_seconds == 20 and 0 < stats.phases["generate"].items < 24
    status = status_of(run)
    names = ["plan", "generate", "combat", "judge", "merge", "train", "commit"]
    assert [entry.name for entry in status.iterations[1].phases] == names
    assert [entry.name for entry in status.iterations[0].phases] == [n for n in names if n != "combat"]
    show_status(status, run.state.root)
    out = capsys.readouterr().out
    assert "1, -, 1, 1" in out and "1, 2, 1, 1" in out


def test_gpu_time_is_that_of_the_tasks_and_idleness_what_is_left_of_the_gpus_there(
    dealt: tuple[Run, AttemptDir], squeue: FakeQueue
) -> None:
    run, attempts = dealt
    # Two at once for 20 s, 30 s of 40 used: 10 s, 10 s, and one that had 4 s before a requeue and 6 after.
    says(attempts, 0, "done", ended=NOW + 10)
    says(attempts, 1, "done", ended=NOW + 10)
    says(attempts, 2, "done", started=NOW + 14, ended=NOW + 20, spent=4.0, requeues=1)
    generate = phase(status_of(run), 1, "generate")
    assert generate.gpu_seconds == pytest.approx(30) and generate.gpu_idle == pytest.approx(0.25)
    cost = cost_of(run, attempts)
    assert (cost.busy, cost.gpu_seconds, cost.gpu_idle) == pytest.approx((30, 30, 0.25))


def test_tasks_and_model_loads_are_shown_for_every_phase(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = begin(tmp_path, iterations=1)
    advance(run, 1, upto="plan")
    attempts = AttemptDir(run, Generate(), 1)
    attempts.assign(shard_items(Generate().missing(run, 1), 4), "local")
    for shard in range(4):
        says(attempts, shard, "done", loads=2)
    generate = phase(status_of(run), 1, "generate")
    assert (generate.tasks, generate.loads) == (4, 8)
    keys = {item.key for item in Generate().missing(run, 1)}
    Generate().perform(run, 1, keys, 0, 0, lambda items: None)
    advance(run, 1)
    measure(run, phases_of(run.recipe, 1), 1)
    status = status_of(run)
    stats = files.read_json(run.iteration(1).stats, IterationStats)
    assert phase(status, 1, "generate").loads == stats.phases["generate"].loads == 8
    assert phase(status, 1, "judge").tasks == 1
    show_status(status, run.state.root)
    out = capsys.readouterr().out
    assert "4, 1, 1" in out and "8, " in out and "tasks, model loads: of generate, judge, train" in out
    fields = json.loads(as_json(status))["iterations"][0]["phases"][1]
    assert (fields["name"], fields["tasks"], fields["loads"]) == ("generate", 4, 8)


def test_a_phase_that_needs_no_gpu_uses_none(tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 1, upto="plan")
    cost = cost_of(run, AttemptDir(run, phase_named("plan"), 1))
    assert (cost.gpu_seconds, cost.gpu_idle) == (0.0, None)


def test_the_total_is_over_measured_and_unfinished_iterations(tmp_path: Path, squeue: FakeQueue) -> None:
    run = begin(tmp_path)
    advance(run, 1)
    measure(run, phases_of(run.recipe, 1), 1)
    path = run.iteration(1).stats
    stats = files.read_json(path, IterationStats)
    files.write_json(path, msgspec.structs.replace(stats, gpu_seconds=60.0, gpu_idle=0.25))
    advance(run, 2, upto="plan")
    attempts = AttemptDir(run, Generate(), 2)
    attempts.assign(shard_items(Generate().missing(run, 2), 1), "slurm")
    note_jobs([(attempts, 0)], Jobs([ArrayPart("array", 0, 1, "7")]))
    says(attempts, 0, "done", ended=NOW + 20)
    status = status_of(run)
    assert [entry.gpu_seconds for entry in status.iterations] == pytest.approx([60, 20])
    assert (status.gpu_seconds, status.gpu_idle) == (80, pytest.approx(0.2, abs=0.01))


def test_statistics_from_before_gpu_time_was_measured_can_be_read(tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 1)
    measure(run, phases_of(run.recipe, 1), 1)
    path = run.iteration(1).stats
    tree = json.loads(path.read_text())
    for part in (tree, *tree["phases"].values()):
        del part["gpu_seconds"], part["gpu_idle"]
    path.write_text(json.dumps(tree))
    assert status_of(run).gpu_seconds == 0


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        ([], ""),
        (["node3"], "node3"),
        (["node2", "node10", "node1", "node9", "node1"], "node[1-2,9-10]"),
        (["n01", "n02", "n1", "cpu", "cpu1"], "cpu,cpu1,n[01-02],n1"),
    ],
)
def test_nodes_are_named_as_slurm_names_them(names: list[str], shown: str) -> None:
    assert compressed(names) == shown


def test_a_task_that_was_cancelled_after_its_work_is_what_ended_the_chain(
    dealt: tuple[Run, AttemptDir], squeue: FakeQueue
) -> None:
    run, attempts = dealt
    chained(run)
    judge = AttemptDir(run, Judge(), 1)
    judge.assign([Judge().work(run, 1)], "slurm")
    note_jobs([(judge, 0)], Jobs([ArrayPart("later", 0, 1, "8")]))
    keys = {item.key for item in Generate().missing(run, 1)}
    Generate().perform(run, 1, keys, 0, 0, lambda items: None)
    for shard in range(4):
        says(attempts, shard, "done")
        squeue.has("CANCELLED" if shard == 2 else "COMPLETED", shard)
    squeue.has("CANCELLED", job="8", name="later")
    status = status_of(run)
    assert status.state == "failed"
    assert [(task.phase, task.shard, task.why) for task in status.ended] == [
        ("generate", 2, "cancelled, its work done")
    ]


def test_what_a_task_does_otherwise_than_asked_is_shown_with_its_phase(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fallbacks, "_found", {})
    note.cache_clear()
    run = begin(tmp_path)
    fallbacks.fall_back("vLLM runs without compiling")
    assert "note: vLLM runs without compiling" in capsys.readouterr().err
    advance(run, 1, upto="plan")
    attempts = AttemptDir(run, Generate(), 1)
    attempt = attempts.assign([Generate().work(run, 1)], "inline")
    run_task(run, attempt.piece, 0, lambda _: None)
    status = status_of(run)
    assert phase(status, 1, "generate").notes == ["vLLM runs without compiling"]
    show_status(status, run.state.root)
    shown = " ".join(capsys.readouterr().out.split())
    assert "note: vLLM runs without compiling (in generate of iteration 1)" in shown

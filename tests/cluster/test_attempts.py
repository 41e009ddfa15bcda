"""Attempts are written before anything starts, numbers are never reused, and tasks record how they ended."""

import errno
import json
import os
import shutil
from pathlib import Path

import msgspec
import pytest
from support.scripted_run import advance, begin, rows_on_disk
from support.store_samples import EARLIER_STATE

from sparta.cluster.attempts import Attempt, AttemptDir, Piece, TaskRecord, TaskReporter, new_record
from sparta.cluster.gpu_time import cost_of
from sparta.cluster.local import Local
from sparta.cluster.sharding import shard_items
from sparta.cluster.slurm.job_ids import ArrayPart, Jobs, note_jobs
from sparta.cluster.task import run_task
from sparta.commands.cancel import attempts_below
from sparta.errors import SpartaError
from sparta.evaluation.answer import Evaluate
from sparta.phases.base import ArrayPhase, PhaseSpec, WorkItem
from sparta.phases.generate import Generate
from sparta.phases.generate_and_judge import CombatAndJudge
from sparta.phases.judge import Judge
from sparta.store import files
from sparta.store.layout import StateDir
from sparta.store.process import ProcessId, identify
from sparta.store.run import Run


@pytest.fixture
def planned(tmp_path: Path) -> Run:
    run = begin(tmp_path)
    advance(run, 1, upto="plan")
    return run


def ignore(_: float) -> None: ...


def dealt(run: Run, tasks: int = 3) -> tuple[AttemptDir, list[list[str]]]:
    attempts = AttemptDir(run, Generate(), 1)
    shards = shard_items(Generate().missing(run, 1), tasks)
    attempts.assign(shards, "inline")
    return attempts, [[item.key for item in shard] for shard in shards]


def test_keys_are_on_disk_as_they_were_assigned(planned: Run) -> None:
    attempts, keys = dealt(planned)
    [attempt] = attempts.all()
    assert (attempt.number, attempt.shards, attempt.items) == (0, 3, 24)
    assert [attempts.keys(0, shard) for shard in range(3)] == keys


def test_what_each_shard_costs_is_on_disk_and_an_attempt_without_costs_can_be_read(planned: Run) -> None:
    attempts, keys = dealt(planned)
    [attempt] = attempts.all()
    assert attempt.costs == [len(shard) * 1.0 for shard in keys]
    path = attempts.folder / "a0.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "costs"}))
    assert attempts.all()[0].costs == []
    run_task(planned, Piece("generate", 1, 0), 0, ignore)
    assert cost_of(planned, attempts).cost == 0


def test_attempts_are_numbered_consecutively_and_read_in_order(planned: Run) -> None:
    for _ in range(12):
        attempts, _ = dealt(planned)
    assert [attempt.number for attempt in attempts.all()] == list(range(12))


def test_alternatives_share_numbers_so_no_two_tasks_write_one_shard_file(
    planned: Run,
) -> None:
    generate, judge, combat = (
        AttemptDir(planned, phase, 1) for phase in (Generate(), Judge(), CombatAndJudge())
    )
    for attempts in (generate, combat, judge, generate):
        attempts.assign(shard_items(attempts.phase.missing(planned, 1), 2), "inline")
    assert (generate.numbers, combat.numbers, judge.numbers) == ({0, 2}, {1}, {2})
    assert combat.next_number() == 3
    assert AttemptDir(planned, CombatAndJudge(), 2).next_number() == 0
    for attempts, number in ((generate, 0), (combat, 1)):
        with pytest.raises(SpartaError, match="assigned again"):
            run_task(planned, Piece(attempts.phase.name, 1, number), 0, ignore)


def test_a_number_reserved_by_a_detached_launch_is_taken_for_alternatives_too(
    planned: Run,
) -> None:
    note_jobs([(AttemptDir(planned, CombatAndJudge(), 2), 4)], Jobs([ArrayPart("n", 0, 1, "10")]))
    assert [AttemptDir(planned, phase, 2).next_number() for phase in (Generate(), Judge())] == [5, 5]


def test_an_attempt_whose_assignment_was_interrupted_does_not_count(planned: Run) -> None:
    attempts, _ = dealt(planned)
    (attempts.folder / "a0.json").unlink()
    assert attempts.all() == []


def test_a_task_records_that_it_is_done(planned: Run) -> None:
    attempts, keys = dealt(planned)
    run_task(planned, Piece("generate", 1, 0), 1, ignore)
    [record] = attempts.records(attempts.all()[0])
    assert (record.shard, record.outcome, record.items, record.loads >= 0) == (1, "done", len(keys[1]), True)
    assert record.process.pid == os.getpid() and not record.killed and not record.alive
    assert set(rows_on_disk(planned, Generate(), 1)) == set(keys[1])


def test_a_task_records_why_it_failed(tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 1, upto="generate")
    [path] = run.iteration(1).responses.iterdir()
    path.write_bytes(b"{}\n" + path.read_bytes())
    attempts = AttemptDir(run, Generate(), 1)
    attempts.assign(shard_items(Generate().work(run, 1), 1), "inline")
    with pytest.raises(SpartaError, match="line 1 is not a valid Response"):
        run_task(run, Piece("generate", 1, 1), 0, ignore)
    [record] = attempts.records(attempts.all()[1])
    assert record.outcome == "failed" and record.said and "line 1" in record.said


def test_a_task_whose_keys_were_assigned_again_does_nothing(planned: Run) -> None:
    attempts, _ = dealt(planned)
    dealt(planned)
    with pytest.raises(SpartaError, match="assigned again, in attempt 1"):
        run_task(planned, Piece("generate", 1, 0), 0, ignore)
    assert rows_on_disk(planned, Generate(), 1) == []
    assert attempts.records(attempts.all()[0])[0].outcome == "failed"


@pytest.mark.parametrize(("first", "other"), [(Generate(), CombatAndJudge()), (CombatAndJudge(), Generate())])
def test_a_task_whose_keys_were_assigned_to_an_alternative_does_nothing(
    first: ArrayPhase, other: ArrayPhase, planned: Run
) -> None:
    for phase in (first, other):
        AttemptDir(planned, phase, 1).assign(shard_items(phase.missing(planned, 1), 1), "inline")
    with pytest.raises(SpartaError, match=f"assigned again, in attempt 1 at {other.name}"):
        run_task(planned, Piece(first.name, 1, 0), 0, ignore)
    assert rows_on_disk(planned, Generate(), 1) == []
    run_task(planned, Piece(other.name, 1, 1), 0, ignore)
    assert len(rows_on_disk(planned, Generate(), 1)) == 24


def test_a_task_that_is_gone_without_a_final_record_was_killed() -> None:
    here = new_record(0, 5)
    assert here.alive and not here.killed
    process = here.process
    gone = msgspec.structs.replace(
        here, process=ProcessId(process.pid, process.machine, (process.start or 0) - 1)
    )
    assert gone.killed and not gone.alive
    elsewhere = msgspec.structs.replace(
        here, process=ProcessId(process.pid, "another machine", process.start)
    )
    assert not elsewhere.killed and not elsewhere.alive


def test_nothing_half_written_is_read(planned: Run) -> None:
    attempts, _ = dealt(planned)
    (attempts.folder / ".a1.json.abc.tmp").write_text("{")
    files.write_bytes(attempts.folder / "a1-00000.keys", b"x\n")
    assert [attempt.number for attempt in attempts.all()] == [0]


def test_the_record_of_a_restarted_task_belongs_to_the_later_start(tmp_path: Path) -> None:
    """A node that lost its network may finish the earlier start, or fail with it, although nobody waits for it."""
    path = tmp_path / "a0-00000.json"
    first = TaskReporter(path, new_record(0, 5))
    first.started()
    assert not first.overtaken
    second = TaskReporter(path, new_record(0, 5, files.read_json(path, TaskRecord), last_seen=0.0))
    second.started()
    assert first.overtaken and not second.overtaken
    first.done(loads=1)
    first.failed(ValueError("late"))
    record = files.read_json(path, TaskRecord)
    assert (record.outcome, record.requeues) == ("running", 1)
    second.done(loads=1)
    assert files.read_json(path, TaskRecord).outcome == "done"


@pytest.mark.parametrize(
    ("number", "final"), [(errno.ENOSPC, True), (errno.EACCES, True), (errno.ESTALE, False)]
)
def test_a_disk_error_of_one_node_is_retried_and_a_full_disk_is_not(
    number: int, final: bool, tmp_path: Path
) -> None:
    report = TaskReporter(tmp_path / "record.json", new_record(0, 5))
    with pytest.raises(SpartaError) as raised, files.os_errors_named(tmp_path):
        raise OSError(number, os.strerror(number))
    report.failed(raised.value)
    record = files.read_json(tmp_path / "record.json", TaskRecord)
    assert record.error and (record.said is not None) == final


def test_attempts_of_version_0_1_0_say_in_the_phase_s_name_what_it_was_asked_for(tmp_path: Path) -> None:
    state = StateDir(Path(shutil.copytree(EARLIER_STATE, tmp_path / "state")))
    run = Run.open(state)
    found = {attempts.folder.name: attempts for attempts in attempts_below(run, state.jobs / "evals")}
    phases = {name: attempts.phase for name, attempts in found.items()}
    assert {name: type(phase) for name, phase in phases.items()} == {"validation": Evaluate, "test": Evaluate}
    assert phases["validation"].spec == PhaseSpec("validation", (("own", ("iter_00", "iter_01")),))
    [attempt] = found["validation"].all()
    assert attempt.phase.startswith("evaluate:validation:") and attempt.spec is None
    [record] = found["validation"].records(attempt)
    assert record.outcome == "done"


def test_an_attempt_says_as_data_what_its_phase_was_asked_for(tmp_path: Path) -> None:
    run = begin(tmp_path)
    phase = Evaluate("test", {"toy": ("iter_00",), "com2": ("iter_00-model1", "iter_00")})
    attempt = AttemptDir(run, phase, 0).assign([[WorkItem("toy/iter_00-model1/q", 1.0, "g")]], "inline")
    read = files.read_json(run.state.jobs / "evals" / "test" / "a0.json", Attempt)
    assert read == attempt and read.phase == "evaluate"
    again = read.piece.attempts(run)
    assert isinstance(again.phase, Evaluate) and again.phase.requested == phase.requested
    assert again.folder == run.state.jobs / "evals" / "test"


def test_a_damaged_attempt_is_reconstructed_from_the_files_beside_it(
    planned: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    attempts, _ = dealt(planned)
    [before] = attempts.all()
    files.write_json(attempts.folder / "a0-00001.process", identify(os.getpid()))
    (attempts.folder / "a0.json").write_text("{")
    [found] = attempts.all()
    assert (found.number, found.shards, found.items, found.cluster) == (0, 3, before.items, "local")
    assert attempts.next_number() == 1
    # Its living tasks are waited for.
    assert Local(planned).running(attempts, found) == [1]
    assert "a0.json is damaged and counts as missing" in capsys.readouterr().err
    note_jobs([(attempts, 0)], Jobs([ArrayPart("name", 0, 3, "7")]))
    assert attempts.all()[0].cluster == "slurm"


def test_a_damaged_record_counts_as_none(planned: Run) -> None:
    attempts, _ = dealt(planned)
    attempts.record_file(0, 2).write_text('{"shard": 2')
    assert attempts.record(0, 2) is None and attempts.records(attempts.all()[0]) == []
    run_task(planned, Piece("generate", 1, 0), 2, ignore)
    record = attempts.record(0, 2)
    assert record is not None and record.outcome == "done"


@pytest.mark.parametrize(("number", "tried_again"), [(errno.EIO, True), (errno.ENOSPC, False)])
def test_an_unhandled_disk_error_ends_a_task_with_a_clear_message(
    planned: Run, monkeypatch: pytest.MonkeyPatch, number: int, tried_again: bool
) -> None:
    attempts, _ = dealt(planned)

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Generate, "perform", fail)
    with pytest.raises(SpartaError, match=str(planned.state.root)):
        run_task(planned, Piece("generate", 1, 0), 0, ignore)
    record = attempts.record(0, 0)
    assert record is not None and record.outcome == "failed"
    assert (record.said is None) is tried_again

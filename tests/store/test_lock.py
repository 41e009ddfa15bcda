"""The lock: one driver at a time, with real processes that contend, die and race."""

import errno
import os
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from support.store_samples import Start

from sparta.errors import SpartaError
from sparta.store import files, lock
from sparta.store.baton import DEAD_AFTER_SECONDS, Claim, Holder
from sparta.store.driver_jobs import DriverJob, DriverJobs, driver_jobs, drivers_file
from sparta.store.files import read_json, write_json
from sparta.store.layout import StateDir
from sparta.store.lock import RunLock, holder

HOLD = """
    import sys
    from pathlib import Path
    from sparta.errors import SpartaError
    from sparta.store.layout import StateDir
    from sparta.store.lock import RunLock
    try:
        with RunLock(StateDir(Path(sys.argv[1])), print):
            print("held", flush=True)
            sys.stdin.readline()
    except SpartaError as error:
        print(f"refused: {error}", flush=True)
    """


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    return StateDir(tmp_path / "state")


@pytest.fixture
def said() -> list[str]:
    return []


def line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def who(state: StateDir) -> Holder:
    found = holder(state)
    assert found is not None
    return found


def leave_behind(state: StateDir, silent: float = 0.0, **changes: object) -> None:
    """A lock as another process, of which `changes` is true, left it `silent` seconds ago."""
    mine = RunLock(state, print)
    mine.__enter__()
    mine._stop.set()
    claim = msgspec.structs.replace(who(state).claim, **changes)
    path = state.lock / f"{claim.token}.json"
    write_json(path, claim)
    os.utime(path, (time.time() - silent, time.time() - silent))


def test_a_lock_is_free_before_and_after_the_block(state: StateDir, said: list[str]) -> None:
    assert holder(state) is None
    with RunLock(state, said.append) as mine:
        mine.check()
        now = who(state)
        assert (now.claim.pid, now.alive) == (os.getpid(), True)
    assert holder(state) is None
    assert [path.name for path in state.lock.iterdir()] == ["free"]
    assert said == []


def test_a_lock_object_can_be_used_again(state: StateDir, said: list[str]) -> None:
    mine = RunLock(state, said.append)
    for _ in range(3):
        with mine:
            assert who(state).alive


def test_a_lock_is_released_when_the_block_fails(state: StateDir, said: list[str]) -> None:
    with pytest.raises(RuntimeError), RunLock(state, said.append):
        raise RuntimeError
    assert holder(state) is None


def test_the_error_of_a_second_driver_names_the_holder_and_the_remedy(state: StateDir, start: Start) -> None:
    first = start(HOLD, state.root)
    assert line(first) == "held"
    second = start(HOLD, state.root).communicate()[0]
    assert second.startswith(f"refused: {state.root} is being driven by process {first.pid} on ")
    assert f"kill {first.pid}" in second
    assert who(state).claim.pid == first.pid
    first.communicate("\n")
    third = start(HOLD, state.root)
    assert line(third) == "held"


def test_the_lock_of_a_killed_driver_is_taken_over_with_a_message(
    state: StateDir, start: Start, said: list[str]
) -> None:
    first = start(HOLD, state.root)
    assert line(first) == "held"
    first.kill()
    while who(state).alive:
        time.sleep(0.01)
    # Not waited for: the process is a zombie still, and its pid therefore not free.
    with RunLock(state, said.append):
        assert who(state).claim.pid == os.getpid()
        assert len(list(state.lock.iterdir())) == 2
    assert len(said) == 1
    assert f"process {first.pid} on" in said[0]
    assert "no longer running" in said[0]


def claims(state: StateDir) -> set[str]:
    return {path.name for path in state.lock.glob("*.json")}


def test_what_processes_left_that_were_killed_before_they_had_the_lock_is_cleared(
    state: StateDir, said: list[str]
) -> None:
    with RunLock(state, said.append):
        mine = who(state).claim
    for token, change in (("dead", {"pid": 2**22}), ("waiting", {}), ("far", {"machine": "elsewhere"})):
        write_json(state.lock / f"{token}.json", msgspec.structs.replace(mine, token=token, **change))
    for token, silent in (("torn", 0.0), ("torn-long-ago", 500.0)):
        (state.lock / f"{token}.json").write_text("{")
        os.utime(state.lock / f"{token}.json", (time.time() - silent, time.time() - silent))
    with RunLock(state, said.append):
        held = f"{who(state).claim.token}.json"
        assert claims(state) == {held, "waiting.json", "far.json", "torn.json"}
    assert claims(state) == {"waiting.json", "far.json", "torn.json"}


def test_a_claim_that_cannot_be_brought_to_the_disk_leaves_nothing(
    state: StateDir, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunLock(state, said.append):
        pass

    def full(path: Path) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), str(path))

    with monkeypatch.context() as patched:
        patched.setattr(files, "sync", full)
        with pytest.raises(SpartaError, match="is full"), RunLock(state, said.append):
            pass
    assert [path.name for path in state.lock.iterdir()] == ["free"]


def test_another_process_that_was_given_the_pid_of_the_dead_driver_does_not_keep_the_lock(
    state: StateDir, said: list[str]
) -> None:
    leave_behind(state, process_start=1)
    assert not who(state).alive
    with RunLock(state, said.append):
        assert len(said) == 1


def test_a_lock_from_another_machine_holds_while_its_heartbeat_is_young(
    state: StateDir, said: list[str]
) -> None:
    leave_behind(
        state, silent=DEAD_AFTER_SECONDS - 20, machine="elsewhere", host="node7", pid=1, slurm_job_id="42"
    )
    assert who(state).alive
    with (
        pytest.raises(SpartaError, match=r"process 1 on node7 .*SLURM job 42.* last heartbeat was 100 s ago"),
        RunLock(state, said.append),
    ):
        pass
    assert sorted(path.suffix for path in state.lock.iterdir()) == ["", ".json"]


def test_a_lock_from_another_machine_is_taken_over_when_its_heartbeat_is_old(
    state: StateDir, said: list[str]
) -> None:
    leave_behind(state, silent=DEAD_AFTER_SECONDS + 1, machine="elsewhere", host="node7")
    assert not who(state).alive
    with RunLock(state, said.append):
        assert "node7" in said[0]


def test_a_requeued_job_takes_the_lock_of_its_own_earlier_start_over_at_once(
    state: StateDir, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node it ran on may be gone, with nobody to release anything."""
    leave_behind(state, silent=5, machine="elsewhere", host="node7", slurm_job_id="42")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    for job, alive in (("41", True), ("42", False)):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        assert who(state).alive == alive
    with RunLock(state, said.append):
        assert "node7" in said[0]


def test_the_job_of_that_id_on_another_cluster_is_no_earlier_start(
    state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = {"slurm_job_id": "42", "slurm_cluster": "alpha"}
    leave_behind(state, silent=5, machine="elsewhere", host="node7", **job)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    for cluster, alive in (("beta", True), ("alpha", False)):
        monkeypatch.setenv("SLURM_CLUSTER_NAME", cluster)
        assert who(state).alive == alive


# --- drivers that are batch jobs


def as_driver_job(patch: pytest.MonkeyPatch, job: str) -> None:
    """This process is what slurm/driver.sh starts in a job."""
    patch.setenv("SLURM_JOB_ID", job)
    patch.setenv("SLURM_JOB_NAME", "sparta-driver")
    patch.setenv("SPARTA_DRIVER_JOB", job)


@pytest.mark.parametrize(("driver", "noted"), [("42", "42"), ("41", None), (None, None)])
def test_a_job_counts_as_a_driver_job_where_its_own_batch_script_says_so(
    state: StateDir, driver: str | None, noted: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_driver_job(monkeypatch, "42")
    if driver is None:
        monkeypatch.delenv("SPARTA_DRIVER_JOB")
    else:
        monkeypatch.setenv("SPARTA_DRIVER_JOB", driver)
    with RunLock(state, print):
        claim = who(state).claim
        assert (claim.slurm_job_id, claim.driver_job) == ("42", noted)
        assert [note.job for note in driver_jobs(state)] == ([noted] if noted else [])
        assert "SLURM job 42" in str(claim)


def test_a_claim_that_does_not_say_whose_the_job_is_is_read(state: StateDir) -> None:
    leave_behind(state, slurm_job_id="42")
    path = state.lock / f"{who(state).claim.token}.json"
    fields = read_json(path, dict)
    del fields["driver_job"]
    write_json(path, fields)
    assert read_json(path, Claim).driver_job is None
    assert who(state).claim.slurm_job_id == "42"


@pytest.mark.parametrize(("how", "stays"), [(None, False), (ValueError, False), (KeyboardInterrupt, True)])
def test_a_driver_job_is_noted_until_it_completes(
    state: StateDir, how: type[BaseException] | None, stays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_driver_job(monkeypatch, "41")
    with pytest.raises(KeyboardInterrupt), RunLock(state, print):
        raise KeyboardInterrupt
    as_driver_job(monkeypatch, "42")
    first, mine = (DriverJob(job, "sparta-driver") for job in ("41", "42"))
    with suppress(ValueError, KeyboardInterrupt), RunLock(state, print):
        assert driver_jobs(state) == [first, mine]
        if how is not None:
            raise how
    assert driver_jobs(state) == ([first, mine] if stays else [first])


def test_a_driver_job_is_noted_with_its_cluster_once(
    state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same id there are a job of another cluster and its own note by a version that noted no cluster."""
    old, other = DriverJob("42", "sparta-driver"), DriverJob("42", "sparta-driver", "beta")
    write_json(drivers_file(state), DriverJobs(str(state.root.absolute()), [old, other]))
    as_driver_job(monkeypatch, "42")
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "alpha")
    with RunLock(state, print):
        assert who(state).claim.slurm_cluster == "alpha"
        assert driver_jobs(state) == [other, DriverJob("42", "sparta-driver", "alpha")]
    assert driver_jobs(state) == [other]


def test_the_driver_jobs_of_a_state_are_not_those_of_its_copy(
    state: StateDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_driver_job(monkeypatch, "42")
    with RunLock(state, print):
        copy = StateDir(shutil.copytree(state.root, tmp_path / "copy"))
        (tmp_path / "link").symlink_to(state.root)
    as_driver_job(monkeypatch, "43")
    with pytest.raises(KeyboardInterrupt), RunLock(state, print):
        raise KeyboardInterrupt
    assert driver_jobs(copy) == []
    assert [note.job for note in driver_jobs(StateDir(tmp_path / "link"))] == ["43"]
    state.root.rename(tmp_path / "away")
    assert driver_jobs(StateDir(tmp_path / "away")) == []


def test_the_heartbeat_keeps_the_file_of_the_holder_young(
    state: StateDir, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.02)
    with RunLock(state, said.append):
        path = state.lock / f"{who(state).claim.token}.json"
        os.utime(path, (0, 0))
        time.sleep(0.3)
        assert who(state).silent_seconds < 5


def test_a_driver_that_lost_its_lock_does_not_release_its_successors(
    state: StateDir, said: list[str]
) -> None:
    first = RunLock(state, said.append)
    with first:
        path = state.lock / f"{who(state).claim.token}.json"
        write_json(path, msgspec.structs.replace(who(state).claim, machine="elsewhere"))
        os.utime(path, (0, 0))
        with RunLock(state, said.append) as second:
            with pytest.raises(SpartaError, match=f"was taken over by process {os.getpid()}"):
                first.check()
            first.__exit__(None, None, None)
            second.check()
            assert who(state).alive
    assert holder(state) is None


def test_a_forked_child_does_not_release_the_lock_of_its_parent(state: StateDir, said: list[str]) -> None:
    with RunLock(state, said.append) as mine:
        child = os.fork()
        if child == 0:
            mine.__exit__(None, None, None)
            os._exit(0)
        os.waitpid(child, 0)
        mine.check()


@pytest.mark.parametrize("stale", [False, True])
def test_of_eight_processes_that_race_for_a_lock_exactly_one_gets_it(
    state: StateDir, start: Start, stale: bool
) -> None:
    code = """
        import sys, time
        from pathlib import Path
        from sparta.errors import SpartaError
        from sparta.store.layout import StateDir
        from sparta.store.lock import RunLock
        print("ready", flush=True)
        for command in sys.stdin:
            root, at = command.split()
            while time.time() < float(at):
                pass
            try:
                with RunLock(StateDir(Path(root)), lambda said: None):
                    print("held", flush=True)
                    sys.stdin.readline()
                    print("released", flush=True)
            except SpartaError as error:
                print(error, flush=True)
        """
    racers = [start(code) for _ in range(8)]
    assert all(line(racer) == "ready" for racer in racers)
    for round_ in range(12):
        here = StateDir(state.root / str(round_))
        if stale:
            leave_behind(here, process_start=1)
        at = time.time() + 0.03
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write(f"{here.root} {at}\n")
            racer.stdin.flush()
        answers = [line(racer) for racer in racers]
        winners = [racer for racer, answer in zip(racers, answers, strict=True) if answer == "held"]
        assert len(winners) == 1, answers
        assert all(f"by process {winners[0].pid} on" in answer for answer in answers if answer != "held")
        assert len(list(here.lock.iterdir())) == 2
        assert winners[0].stdin is not None
        winners[0].stdin.write("\n")
        winners[0].stdin.flush()
        assert line(winners[0]) == "released"


def test_drivers_that_come_and_go_never_hold_the_lock_together(state: StateDir, start: Start) -> None:
    code = """
        import os, sys, time
        from pathlib import Path
        from sparta.errors import SpartaError
        from sparta.store.layout import StateDir
        from sparta.store.lock import RunLock
        root = Path(sys.argv[1])
        end, held = time.time() + 1.5, 0
        while time.time() < end:
            try:
                with RunLock(StateDir(root), print):
                    os.close(os.open(root / "inside", os.O_CREAT | os.O_EXCL))
                    time.sleep(0.001)
                    os.unlink(root / "inside")
                    held += 1
            except SpartaError as error:
                if "is being driven by" not in str(error):
                    raise
        print(held)
        """
    racers = [start(code, state.root) for _ in range(4)]
    outputs = [racer.communicate()[0].split() for racer in racers]
    assert all(len(output) == 1 for output in outputs), outputs
    assert sum(int(output[0]) for output in outputs) > 10


def test_a_lock_without_a_baton_is_refused_with_the_remedy(
    state: StateDir, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_SETTLE_SECONDS", 0.1)
    state.lock.mkdir(parents=True)
    (state.lock / "notes").touch()
    with pytest.raises(SpartaError, match="make sure that no other driver runs"), RunLock(state, said.append):
        pass


def test_a_run_in_a_place_that_may_not_be_written_cannot_be_locked_but_looked_at(
    small_disk: Path, said: list[str]
) -> None:
    state = StateDir(small_disk)
    leave_behind(state, machine="elsewhere", silent=DEAD_AFTER_SECONDS + 1)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert not who(state).alive
    with pytest.raises(SpartaError, match="Read-only file system"), RunLock(state, said.append):
        pass


def test_a_driver_that_fails_right_after_it_took_the_lock_leaves_it_free(
    state: StateDir, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: RunLock) -> None:
        raise SpartaError("the disk does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(RunLock, "_clear_claims", fails)
        with pytest.raises(SpartaError, match="does not answer"), RunLock(state, said.append):
            pass
    assert [path.name for path in state.lock.iterdir()] == ["free"]
    with RunLock(state, said.append):
        assert said == []

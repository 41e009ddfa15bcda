"""Parameters for submitit, and handling of sbatch's answers; the whole scripts are in golden/."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sparta.cluster.attempts import Piece
from sparta.cluster.slurm import cli
from sparta.cluster.slurm import submit as submission
from sparta.cluster.slurm.cli import QueueEntry, SlurmUnavailable
from sparta.cluster.slurm.job_ids import parts_of
from sparta.cluster.slurm.profile import Profile, load_profile
from sparta.cluster.slurm.submit import Array, parameters, submit, throttles
from sparta.cluster.slurm.worker import ShardJob
from sparta.errors import SpartaError


def rounds(sizes: Sequence[int], shares: Sequence[int]) -> int:
    """How often tasks, all equally long, follow one another until the last array is through."""
    return max(-(-size // share) for size, share in zip(sizes, shares, strict=True))


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12), st.integers(3, 16))
def test_arrays_share_the_task_limit_optimally(a: int, b: int, c: int, width: int) -> None:
    sizes = [a, b, c]
    shares = throttles(width, sizes)
    assert min(shares) >= 1 and sum(shares) == max(3, min(width, sum(sizes)))
    every = product(range(1, width + 1), repeat=3)
    assert rounds(sizes, shares) == min(rounds(sizes, given) for given in every if sum(given) <= width)


@given(st.integers(1, 3000), st.integers(1, 400), st.integers(1, 200))
def test_arrays_that_are_small_take_no_longer_than_one_large_array(
    shards: int, largest: int, width: int
) -> None:
    assume(shards <= largest * width)
    parts = parts_of("name", shards, largest, width)
    sizes = [part.count for part in parts]
    assert rounds(sizes, throttles(width, sizes)) == -(-shards // width)


def test_twenty_tasks_of_arrays_of_eight_take_four_rounds_on_five_gpus() -> None:
    assert [part.count for part in parts_of("name", 20, 8, 5)] == [8, 8, 4]
    assert throttles(5, [8, 8, 4]) == [2, 2, 1]
    # What is spread otherwise is shared by size as well, as far as whole tasks allow.
    assert throttles(6, [10, 1, 1]) == [4, 1, 1]


def test_more_arrays_than_tasks_may_run_at_once_are_refused() -> None:
    assert throttles(4, [3, 3, 3, 3]) == [1, 1, 1, 1]
    sizes = [part.count for part in parts_of("name", 41, 8, 4)]
    assert len(sizes) == 6 and sum(sizes) == 41
    with pytest.raises(
        SpartaError,
        match="6 arrays, because arrays are small on this cluster .* the 4 tasks that may run at once",
    ):
        throttles(4, sizes)


@pytest.fixture
def profile() -> Profile:
    return load_profile("devcluster")


@pytest.fixture
def array(profile: Profile, tmp_path: Path) -> Array:
    return Array(
        name="name",
        work=ShardJob(tmp_path / "state", (Piece("judge", 1, 0),)),
        first=0,
        count=4,
        throttle=2,
        resources=profile.shape("judge", "gpu"),
        logs=tmp_path / "logs",
        code=tmp_path / "it's code",
    )


def test_unset_options_are_not_passed(array: Array, profile: Profile) -> None:
    told = parameters(array, profile)
    assert {told[key] for key in ("dependency", "qos", "account", "constraint", "exclude", "wckey")} == {None}
    assert "hold" not in told["additional_parameters"]
    step = parameters(replace(array, resources=profile.shape("merge", "cpu")), profile)
    assert step["gpus_per_node"] is None


def test_jobs_are_requeued_and_cancelled_when_their_dependency_fails(array: Array, profile: Profile) -> None:
    told = parameters(replace(array, dependency="afterok:1:2", hold=True), profile)
    assert told["dependency"] == "afterok:1:2"
    more = told["additional_parameters"]
    assert (more["requeue"], more["kill-on-invalid-dep"], more["hold"]) == (True, "yes", True)


def test_the_gpu_type_is_passed_where_the_profile_names_one(array: Array, profile: Profile) -> None:
    assert parameters(array, profile)["gpus_per_node"] == "a100:1"
    any_type = replace(array, resources=replace(array.resources, gpu_type=None, gpus=2))
    assert parameters(any_type, profile)["gpus_per_node"] == 2


def test_gpus_are_requested_by_gres_where_the_profile_says_so(array: Array, profile: Profile) -> None:
    told = parameters(array, profile.model_copy(update={"gpus_by": "gres"}))
    assert (told["gres"], told["gpus_per_node"]) == ("gpu:a100:1", None)
    assert parameters(array, profile)["gres"] is None


def test_the_copy_of_the_code_comes_before_anything_on_the_path(array: Array, profile: Profile) -> None:
    [line] = parameters(array, profile)["setup"]
    assert line.startswith("export PYTHONPATH='") and """it'"'"'s code'""" in line
    assert line.endswith('"${PYTHONPATH:+:$PYTHONPATH}"')


def test_options_of_the_profile_reach_sbatch_and_srun(array: Array, profile: Profile) -> None:
    more = profile.model_copy(
        update={"sbatch": {"mail-user": "me@example.org"}, "srun": ("--cpu-bind=none",)}
    )
    told = parameters(replace(array, resources=replace(array.resources, exclude=("node7", "node9"))), more)
    assert told["additional_parameters"]["mail-user"] == "me@example.org"
    assert told["srun_args"] == ["--cpus-per-task=1", "--cpu-bind=none"]
    assert told["exclude"] == "node7,node9"


@pytest.mark.parametrize("missing", ["sbatch", "srun"])
def test_without_slurms_commands_nothing_is_submitted_and_the_way_out_is_named(
    missing: str, array: Array, profile: Profile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in {"sbatch", "srun"} - {missing}:
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        SpartaError, match=f"{missing} is not on PATH: .* run without SLURM with --cluster local"
    ):
        submit(array, profile)
    assert not array.logs.exists()


# --- what sbatch answers

Sbatch = Callable[..., Path]


@pytest.fixture
def sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sbatch:
    """Puts a shell script on the PATH as sbatch. The file that has a line for each of its calls."""
    calls = tmp_path / "calls"
    calls.touch()

    def make(script: str) -> Path:
        for name, lines in (("sbatch", f"echo >>{calls}; n=$(wc -l <{calls})\n{script}"), ("srun", "")):
            path = tmp_path / "bin" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"#!/bin/bash\n{lines}\n")
            path.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
        return calls

    return make


class Queued:
    """What squeue and scancel do: jobs are called "name"; for the first `mute` questions nobody answers."""

    def __init__(self, code: Path, *jobs: str, mute: int = 0) -> None:
        self.code, self.jobs, self.mute, self.cancelled = code, set(jobs), mute, list[str]()

    def tasks_named(self, names: Sequence[str], places: Sequence[str | None]) -> list[QueueEntry]:
        assert list(places) == [None]
        assert list(names) == ["name"]
        self.mute -= 1
        if self.mute >= 0:
            raise SlurmUnavailable("squeue says nothing")
        folder = str(self.code / "copy")
        return [QueueEntry("name", f"{job}_0", 0, "PENDING", "", "", folder) for job in sorted(self.jobs)]

    def cancel(self, jobs: Sequence[str]) -> None:
        self.cancelled += jobs
        self.jobs -= {job.partition("_")[0] for job in jobs}


@pytest.fixture
def queued(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Queued]:
    def make(*jobs: str, mute: int = 0) -> Queued:
        there = Queued(tmp_path, *jobs, mute=mute)
        monkeypatch.setattr(cli, "tasks_named", there.tasks_named)
        monkeypatch.setattr(cli, "cancel", there.cancel)
        monkeypatch.setattr(submission, "SECONDS_BETWEEN_TRIES", (0.01, 0.02))
        return there

    return make


def fails(said: str) -> str:
    return f'{{ echo "sbatch: error: {said}" >&2; exit 1; }}'


SOCKET = "Batch job submission failed: Socket timed out on send/recv operation"
LIMIT = "Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"


def test_a_job_gets_its_script_and_the_work_of_its_tasks(
    array: Array, profile: Profile, sbatch: Sbatch
) -> None:
    sbatch('grep -q "job-name=name" "$1" && echo "Submitted batch job 77 on cluster big"')
    assert submit(array, profile) == "77@big"
    assert {path.name for path in array.logs.iterdir()} == {
        "77_submission.sh",
        *(f"77_{index}_submitted.pkl" for index in range(4)),
    }
    # Others may neither put nor read what a task is going to do.
    assert array.logs.stat().st_mode & 0o077 == 0
    assert submit(replace(array, count=1), profile) == "77@big"
    assert (array.logs / "77_submitted.pkl").is_file()


@pytest.mark.parametrize(
    "said",
    [
        SOCKET,
        "Batch job submission failed: Unable to contact slurm controller (connect failure)",
        "Slurm temporarily unable to accept job, sleeping and retrying",
        "Batch job submission failed: Slurm backup controller in standby mode",
        "Batch job submission failed: Connection refused",
        "Batch job submission failed: Zero Bytes were transmitted or received",
        "slurmctld is not responding",
    ],
)
def test_a_silent_controller_is_retried_reported_once_and_a_job_it_queued_is_cancelled(
    said: str, array: Array, profile: Profile, sbatch: Sbatch, queued: Callable[..., Queued]
) -> None:
    # Job 76 is queued although sbatch says nothing of it; squeue is silent for a while as well.
    there, heard = queued("76", "77", mute=2), list[str]()
    there.jobs = {"76"}
    calls = sbatch(f'[ $n -le 2 ] && {fails(said)}; echo "Submitted batch job 77"')
    assert submit(array, profile, heard.append) == "77"
    assert there.cancelled == ["76_0"]
    assert len(calls.read_text()) == 3
    [line] = heard
    assert line.startswith("SLURM does not answer when asked to queue name (") and said in line


def test_a_job_that_appears_after_a_silence_is_cancelled_for_the_one_with_pickles(
    array: Array,
    profile: Profile,
    sbatch: Sbatch,
    queued: Callable[..., Queued],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = queued()
    seen = there.tasks_named

    def late(names: Sequence[str], places: Sequence[str | None]) -> list[QueueEntry]:
        found = seen(names, places)
        there.jobs = {"76", "77"}
        return found

    monkeypatch.setattr(cli, "tasks_named", late)
    sbatch(f'[ $n -le 1 ] && {fails(SOCKET)}; echo "Submitted batch job 77"')
    assert submit(array, profile) == "77"
    assert there.cancelled == ["76_0"]


def test_too_long_a_silence_is_an_error_and_leaves_no_files(
    array: Array, profile: Profile, sbatch: Sbatch, queued: Callable[..., Queued]
) -> None:
    queued()
    sbatch(fails(SOCKET))
    with pytest.raises(SpartaError, match="SLURM has not answered for 0 min") as caught:
        submit(array, profile.model_copy(update={"patience_minutes": 0.005}))
    assert SOCKET in str(caught.value) and "run the same command again when it does" in str(caught.value)
    assert "profile" not in str(caught.value)
    assert not list(array.logs.iterdir())


def test_an_sbatch_that_hangs_is_killed_and_called_again(
    array: Array,
    profile: Profile,
    sbatch: Sbatch,
    queued: Callable[..., Queued],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queued()
    monkeypatch.setattr(submission, "SECONDS_TO_SUBMIT", 0.5)
    heard: list[str] = []
    sbatch('[ $n -le 1 ] && exec sleep 60; echo "Submitted batch job 77"')
    assert submit(array, profile, heard.append) == "77"
    assert len(heard) == 1 and "sbatch gave no answer for" in heard[0]


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("Batch job submission failed: Invalid qos specification", "correct the profile and run"),
        # A complaint before the verdict does not change it.
        (
            "Slurm temporarily unable to accept job, sleeping and retrying\nsbatch: error: Batch job submission failed: Invalid qos specification",
            "correct the profile and run",
        ),
        (
            "Batch job submission failed: Requested node configuration is not available",
            "correct the profile and run",
        ),
        ("unrecognized option '--nosuch'", "correct the profile and run"),
        (LIMIT, "a limit of the cluster is reached: wait until other jobs have ended, or submit fewer"),
        ("QOSMaxSubmitJobPerUserLimit\nsbatch: error: " + LIMIT, "submit fewer jobs"),
        ("AssocMaxSubmitJobLimit", "submit fewer jobs"),
        ("Reached MaxJobCount", "submit fewer jobs"),
        ("Your home is over its disk quota: submission is refused", "free space there and run"),
        ("Unable to write to file: No space left on device", "free space there and run"),
        (
            "Batch job submission failed: I/O error writing script/environment to file",
            "the disk of SLURM's controller is full or fails: tell the cluster's administrators",
        ),
        ("Batch job submission failed: Access/permission denied", "log in where you may submit jobs"),
        ("Munge encode failed: Failed to access socket", "or ask the cluster's administrators, and run"),
        ("No cluster 'alpah' known by database.", "correct the clusters in the profile or in SLURM_CLUSTERS"),
        ("Batch job submission failed: Job dependency problem", "a job that this one depends on is gone"),
        (
            "Batch job submission failed: Unspecified error",
            "correct what it names, in the profile or on the cluster",
        ),
    ],
)
def test_a_refusal_quotes_sbatch_and_gives_the_matching_remedy(
    said: str, remedy: str, array: Array, profile: Profile, sbatch: Sbatch, queued: Callable[..., Queued]
) -> None:
    queued()
    calls = sbatch(fails(said))
    with pytest.raises(SpartaError, match="sbatch refused a job of profile devcluster: ") as caught:
        submit(array, profile)
    assert said.splitlines()[-1].removeprefix("sbatch: error: ") in str(caught.value)
    assert remedy in str(caught.value)
    assert str(caught.value).endswith("run the same command again, nothing is lost")
    # What is no fault of the profile is not laid at its door.
    assert ("correct the profile" in str(caught.value)) == ("correct the profile" in remedy)
    assert len(calls.read_text()) == 1


def test_a_failed_cancellation_does_not_hide_sbatchs_message(
    array: Array, profile: Profile, sbatch: Sbatch, queued: Callable[..., Queued]
) -> None:
    queued(mute=99)
    sbatch(fails("Batch job submission failed: Invalid qos specification"))
    with pytest.raises(
        SpartaError, match="Invalid qos specification; .*; SLURM does not answer .squeue says"
    ):
        submit(array, profile)


@pytest.mark.parametrize(
    "says",
    [
        'echo "Checking job 12 hours ..."; echo "Submitted batch job 77"',
        # In words of its own: the controller knows the name.
        'echo "Checking job 12 hours ..."; echo "All right."',
    ],
)
def test_the_id_is_that_of_the_job_whatever_a_wrapper_prints(
    says: str, array: Array, profile: Profile, sbatch: Sbatch, queued: Callable[..., Queued]
) -> None:
    queued("77")
    sbatch(says)
    assert submit(array, profile) == "77"


def test_an_answer_without_a_job_is_quoted_and_the_queued_jobs_are_cancelled(
    array: Array, profile: Profile, sbatch: Sbatch, queued: Callable[..., Queued]
) -> None:
    there = queued("77", "78")
    sbatch('echo "All right."')
    with pytest.raises(SpartaError, match='it printed "All right.", and squeue knows 2 jobs called name'):
        submit(array, profile)
    assert sorted(there.cancelled) == ["77_0", "78_0"]

"""Which shard is which task of which job."""

from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from support.scripted_run import begin

from sparta.cluster.attempts import AttemptDir
from sparta.cluster.slurm.cli import QueueEntry
from sparta.cluster.slurm.job_ids import (
    ArrayPart,
    Jobs,
    all_jobs,
    job_name,
    jobs_of,
    note_jobs,
    of_this_state,
    parts_of,
    prefix,
)
from sparta.evaluation.answer import Evaluate
from sparta.phases.judge import Judge
from sparta.phases.merge import Merge


def task(name: str, job: str, element: int = 0, state: str = "RUNNING") -> QueueEntry:
    return QueueEntry(name, job, element, state, "", "", "")


@given(st.integers(1, 5000), st.integers(1, 1500), st.integers(1, 300))
def test_shards_are_cut_into_arrays_that_are_not_too_large(shards: int, largest: int, width: int) -> None:
    parts = parts_of("name", shards, largest, width)
    assert parts[0].first == 0 and parts[-1].first + parts[-1].count == shards
    assert all(one.first + one.count == other.first for one, other in pairwise(parts))
    sizes = [part.count for part in parts]
    assert min(sizes) >= 1 and max(sizes) <= largest
    assert len({part.name for part in parts}) == len(parts)
    fewest = -(-shards // largest)
    assert len(parts) == fewest or fewest < len(parts) <= width


def test_an_array_that_is_not_split_has_the_name_of_the_attempt() -> None:
    assert parts_of("name", 21, 21, 4) == [ArrayPart("name", 0, 21)]
    assert parts_of("name", 22, 21, 4) == [ArrayPart("name.0", 0, 11), ArrayPart("name.1", 11, 11)]


def test_a_shard_is_named_as_slurm_names_its_task() -> None:
    jobs = Jobs([ArrayPart("n.0", 0, 2, "10"), ArrayPart("n.1", 2, 1, "11"), ArrayPart("n.2", 3, 2)])
    assert [jobs.id_of(shard) for shard in range(6)] == ["10_0", "10_1", "11", None, None, None]
    assert jobs.ids == ["10", "11"] and jobs.names == ["n.0", "n.1", "n.2"]


def test_tasks_find_their_shards_in_split_arrays() -> None:
    jobs = Jobs([ArrayPart("n.0", 0, 2, "10"), ArrayPart("n.1", 2, 2, "11")])
    tasks = [task("n.0", "10_1", 1), task("n.1", "11_0", 0), task("other", "12_0", 0)]
    assert jobs.by_shard(tasks) == {1: tasks[0], 2: tasks[1]}


def test_of_two_jobs_with_one_name_the_noted_one_counts() -> None:
    """An iteration was set aside while SLURM still remembers its jobs, and the new ones have the same names."""
    jobs = Jobs([ArrayPart("n", 0, 2, "20")])
    old = [task("n", "10_0", 0, "CANCELLED"), task("n", "10_1", 1, "RUNNING")]
    new = [task("n", "20_0", 0, "PENDING")]
    assert jobs.by_shard([*old, *new]) == {0: new[0]}
    assert jobs.by_shard([*new, *old]) == {0: new[0]}


def test_of_two_jobs_with_one_name_and_none_noted_the_living_one_counts() -> None:
    """The launcher was killed before sbatch had told it the id."""
    jobs = Jobs([ArrayPart("n", 0, 1)])
    ended, living = task("n", "10", state="COMPLETED"), task("n", "20")
    assert jobs.by_shard([ended, living]) == jobs.by_shard([living, ended]) == {0: living}


def test_jobs_are_noted_for_every_attempt_they_do(tmp_path: Path) -> None:
    run = begin(tmp_path)
    judge, merge = AttemptDir(run, Judge(), 1), AttemptDir(run, Merge(), 1)
    jobs = Jobs([ArrayPart("n", 0, 1, "10")])
    note_jobs([(judge, 0), (merge, 2)], jobs)
    assert jobs_of(judge, 0) == jobs_of(merge, 2) == jobs
    assert jobs_of(judge, 1) is None
    assert all_jobs(judge) == {0: jobs} and all_jobs(merge) == {2: jobs}
    # A number that jobs were submitted under is taken, whether keys have been dealt out or not.
    assert (judge.next_number(), merge.next_number(), judge.all()) == (1, 3, [])


def test_names_say_run_phase_and_attempt(tmp_path: Path) -> None:
    run = begin(tmp_path)
    assert job_name(run, AttemptDir(run, Judge(), 3), 2) == f"sparta-{run.info.run_id}-iter_03-judge-a2"
    scoring = Evaluate("validation", {"toy": ("iter_00", "iter_08")})
    name = job_name(run, AttemptDir(run, scoring, 0), 0)
    assert name.startswith(prefix(run)) and "/" not in name


def test_a_job_belongs_to_the_state_whose_copy_of_the_code_it_runs(tmp_path: Path) -> None:
    """A copy of a state has its run's id and notes; its jobs are the original's all the same."""
    for state in ("state", "copy"):
        (tmp_path / state / "jobs" / "code").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "state")
    tasks = [
        QueueEntry("n", job, 0, "RUNNING", "", "", str(tmp_path / state / "jobs" / "code" / "1"))
        for job, state in (("1", "state"), ("2", "copy"), ("3", "link"), ("4", "gone"))
    ]
    assert [task.job for task in of_this_state(tmp_path / "state" / "jobs" / "code", tasks)] == ["1", "3"]

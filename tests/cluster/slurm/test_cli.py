"""Parsing of SLURM's commands: a stand-in on PATH prints recorded output of the real ones."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sparta.cluster.slurm import cli
from sparta.cluster.slurm.cli import QueueEntry, SlurmUnavailable, seconds_of
from sparta.errors import SpartaError

Prints = Callable[..., None]


@pytest.fixture
def prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prints:
    """Puts a command on PATH, alone there, that prints what is given and writes its arguments to a file beside it."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def put(name: str, out: str = "", err: str = "", status: int = 0) -> None:
        (tmp_path / f"{name}.out").write_text(out)
        (tmp_path / f"{name}.err").write_text(err)
        program = tmp_path / name
        program.write_text(
            f'#!/bin/sh\necho "$@" >> {program}.asked\n/bin/cat {program}.out\n/bin/cat {program}.err >&2\nexit {status}\n'
        )
        program.chmod(0o755)

    return put


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0:00", 0),
        ("4:05", 245),
        ("1:00:00", 3600),
        ("1-02:03:04", 93784),
        ("10:00", 600),
        ("2-00:00:00", 172800),
        ("infinite", float("inf")),
        ("UNLIMITED", float("inf")),
        ("INVALID", float("inf")),
        ("", float("inf")),
        ("n/a-01:00", float("inf")),
    ],
)
def test_durations_as_sinfo_prints_them(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


def test_tasks_of_arrays_and_jobs_of_their_own_are_told_apart(prints: Prints) -> None:
    prints(
        "squeue",
        "55239261|N/A|PENDING|JobHeldUser||merge|/state/jobs/code/1\n"
        "55239262|3|RUNNING|None|node2|judge|/a|b\n"
        "55239262|4|PENDING|Nodes required for job are DOWN|(null)|judge|/\n"
        "55239262|5|CANCELLED by 0|None|node1|judge|/\n"
        "a line that is something else\n",
    )
    assert cli.tasks_named(["judge", "merge"]) == [
        QueueEntry("merge", "55239261", 0, "PENDING", "JobHeldUser", "", "/state/jobs/code/1"),
        QueueEntry("judge", "55239262_3", 3, "RUNNING", "", "node2", "/a|b"),
        QueueEntry("judge", "55239262_4", 4, "PENDING", "Nodes_required_for_job_are_DOWN", "null", "/"),
        QueueEntry("judge", "55239262_5", 5, "CANCELLED by 0", "", "node1", "/"),
    ]
    assert [task.live for task in cli.tasks_named(["judge"])] == [True, True, True, False]


def test_no_names_need_no_call_and_many_names_are_split_into_several(prints: Prints, tmp_path: Path) -> None:
    prints("squeue")
    assert cli.tasks_named([]) == []
    assert not (tmp_path / "squeue.asked").exists()
    names = [f"name{number}" for number in range(1200)]
    assert cli.tasks_named([*names, *names]) == []
    asked = (tmp_path / "squeue.asked").read_text().splitlines()
    assert len(asked) == 3
    assert sorted(
        name for line in asked for name in line.split("--name=")[1].split(" ")[0].split(",")
    ) == sorted(names)


@pytest.mark.parametrize(
    ("err", "said"),
    [
        (
            "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n",
            "Unable to contact slurm controller (connect failure)",
        ),
        ("squeue: error: Invalid user: 7\n", "Invalid user: 7"),
        ("", "exit status 1"),
    ],
)
def test_a_failed_command_counts_as_no_answer_and_has_a_reason(prints: Prints, err: str, said: str) -> None:
    prints("squeue", err=err, status=1)
    with pytest.raises(SlurmUnavailable) as caught:
        cli.tasks_named(["judge"])
    assert str(caught.value) == said


def test_a_missing_command_is_another_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not cli.installed()
    with pytest.raises(SpartaError, match=r"^squeue is not on PATH: .* --cluster local$"):
        cli.tasks_named(["judge"])


def test_partitions_with_and_without_a_limit(prints: Prints) -> None:
    prints("sinfo", "gpu|infinite\nshort|1:00:00\nlong|7-00:00:00\n")
    assert cli.partitions() == {"gpu": float("inf"), "short": 3600.0, "long": 604800.0}


def test_the_largest_array_is_read_from_the_configuration(prints: Prints) -> None:
    cli.largest_array.cache_clear()
    try:
        prints(
            "scontrol",
            "Configuration data as of now\nMaxArraySize            = 1001\nMaxJobCount             = 10000\n",
        )
        assert cli.largest_array() == 1001
        cli.largest_array.cache_clear()
        prints("scontrol", "Configuration data as of now\n")
        with pytest.raises(SlurmUnavailable, match="names no MaxArraySize"):
            cli.largest_array()
    finally:
        cli.largest_array.cache_clear()


def test_a_job_submitted_from_a_job_inherits_nothing_of_it_but_the_cluster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in (
        "SLURM_JOB_ID",
        "SLURM_CONF",
        "SLURMD_NODENAME",
        "SBATCH_PARTITION",
        "SUBMITIT_EXECUTOR",
        "SRUN_X",
    ):
        monkeypatch.setenv(name, "x")
    kept = {
        name for name in cli.clean_environment() if name.startswith(("SLURM", "SBATCH", "SUBMITIT", "SRUN"))
    }
    assert kept == {"SLURM_CONF"}


@pytest.mark.parametrize(
    ("reason", "known"),
    [
        ("PartitionTimeLimit", True),
        ("QOSMaxWallDurationPerJobLimit", True),
        ("AssocMaxGRESPerJob", True),
        ("QOSMinGRES", True),
        ("QOSMaxJobsPerUserLimit", False),
        ("AssocGrpGRES", False),
        ("Priority", False),
        ("Dependency", False),
    ],
)
def test_reasons_that_waiting_does_not_resolve_are_explained(reason: str, known: bool) -> None:
    assert (cli.needs_a_person(reason) is not None) == known


def test_commands_inherit_neither_job_variables_nor_the_users_defaults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("SLURM_JOB_ID", "SQUEUE_PARTITION", "SBATCH_TIMELIMIT", "SBATCH_ACCOUNT", "SLURM_CONF"):
        monkeypatch.setenv(name, "x")
    free = cli.clean_environment(keep=["SBATCH_ACCOUNT"])
    assert {name for name in free if name.startswith(("S",)) and free[name] == "x"} == {
        "SBATCH_ACCOUNT",
        "SLURM_CONF",
    }

"""SLURM's commands: squeue, sacct, sinfo, scontrol, scancel. The only module that runs them, except for submission."""

import os
import re
import shutil
import subprocess
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import groupby
from typing import NamedTuple

from sparta.errors import SpartaError

LIVE_STATES = frozenset(
    (
        "PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING", "REQUEUED",
        "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD",
    )
)  # fmt: skip
"""States of a task that is in the queue; every other state is final."""

_BLOCKING_REASONS = {
    "AccountNotAllowed": "the partition does not admit the account",
    "BadConstraints": "no node fits what it asks for",
    "InvalidAccount": "the account is not valid",
    "InvalidQOS": "the QOS is not valid",
    "JobHeldAdmin": "an administrator holds it, or it could not be started too often",
    "PartitionConfig": "the partition does not allow what it asks for",
    "PartitionNodeLimit": "the partition does not allow so many nodes",
    "PartitionTimeLimit": "its time limit is longer than the partition allows",
    "QOSNotAllowed": "the partition does not admit the QOS",
    "launch_failed_requeued_held": "it could not be started, and SLURM holds it",
}
_OF_ONE_JOB = re.compile(r"(QOS|Assoc)(Max|Min)\w*PerJob\w*|QOSMinGRES")


def needs_a_person(reason: str) -> str | None:
    """The explanation of a reason for waiting that time alone does not remove; None for every other reason.

    A failed dependency is none of them: SLURM itself removes such a job.
    """
    if _OF_ONE_JOB.fullmatch(reason):
        return "it asks for more, or less, than a single job of the account or QOS may"
    return _BLOCKING_REASONS.get(reason)


SECONDS_TO_ANSWER = 60
_OF_SLURM = ("SLURM_", "SLURMD_", "SRUN_", "SBATCH_", "SUBMITIT_", "SQUEUE_", "SINFO_", "SACCT_", "SCANCEL_")
_FORMAT = "%F|%K|%T|%r|%N|%j|%Z"


class SlurmUnavailable(Exception):
    """A command of SLURM did not answer, or failed. str: its message."""


def job_on(number: str, cluster: str | None) -> str:
    """The id of a job in the suite: its number, or NUMBER@CLUSTER where commands must name its cluster, because two clusters may use one number."""
    return number if cluster is None else f"{number}@{cluster}"


def number_of(job: str) -> str:
    """The number of a job on its own cluster."""
    return job.partition("@")[0]


def cluster_of(job: str) -> str | None:
    """The cluster to ask about a job; None for the default cluster of SLURM's commands."""
    return job.partition("@")[2] or None


class QueueEntry(NamedTuple):
    """A job, or one task of an array, as squeue lists it.

    job: see `job_on`. element: its array index, 0 without an array. folder: its working directory.
    """

    name: str
    job: str
    element: int
    state: str
    reason: str
    node: str
    folder: str

    @property
    def live(self) -> bool:
        """Whether it is queued or running."""
        return self.state in LIVE_STATES

    @property
    def whole(self) -> str:
        """The id of the whole job or array."""
        return job_on(number_of(self.job).partition("_")[0], cluster_of(self.job))


@contextmanager
def answering(remedy: str = "try again when it does") -> Iterator[None]:
    """Turns SlurmUnavailable in the block into a SpartaError with `remedy`."""
    try:
        yield
    except SlurmUnavailable as error:
        raise SpartaError(f"SLURM does not answer ({error}): {remedy}") from None


def missing(program: str) -> SpartaError:
    """The error for a command of SLURM that is not installed."""
    return SpartaError(
        f"{program} is not on PATH: log in where SLURM's commands are or load its module, or run without SLURM with --cluster local"
    )


def require(*programs: str) -> None:
    """Raises SpartaError for the first of `programs`, commands of SLURM, that is not installed."""
    for program in programs:
        if shutil.which(program) is None:
            raise missing(program)


def installed() -> bool:
    """Whether jobs can be submitted from this machine."""
    return shutil.which("sbatch") is not None


def clusters_of_user() -> tuple[str, ...]:
    """The clusters that sbatch chooses from according to its own environment variables; none where these are not set."""
    named = os.environ.get("SBATCH_CLUSTERS") or os.environ.get("SLURM_CLUSTERS") or ""
    return tuple(name.strip() for name in named.split(",") if name.strip())


def clusters_to_ask(chosen: Sequence[str]) -> tuple[str, ...]:
    """The clusters that may have a job for which sbatch chooses from `chosen`, which may be `all` or empty. Raises SlurmUnavailable.

    None where SLURM has only one cluster. Where it has several, even the default cluster is named: commands on machines of another cluster would
    ask that one.
    """
    if "all" in chosen:
        return known_clusters()
    if chosen or not several_clusters():
        return tuple(dict.fromkeys(chosen))
    return (_setting("ClusterName", None),)


@cache
def known_clusters() -> tuple[str, ...]:
    """The clusters that SLURM's accounting knows. Raises SlurmUnavailable where it does not answer."""
    out = _ask(["sacctmgr", "--noheader", "--parsable2", "show", "clusters", "format=Cluster"])
    return tuple(line.strip() for line in out.splitlines() if line.strip())


def several_clusters() -> tuple[str, ...]:
    """The clusters that SLURM's accounting knows, if there are several; none if it knows only one or there is no accounting."""
    try:
        known = known_clusters() if shutil.which("sacctmgr") else ()
    except SlurmUnavailable:
        return ()
    return known if len(known) > 1 else ()


def tasks_named(names: Iterable[str], clusters: Collection[str | None] = (None,)) -> list[QueueEntry]:
    """Tasks of the jobs called `names` that squeue knows on these clusters, including tasks that ended minutes ago. Raises SlurmUnavailable.

    Each cluster is asked separately: for several at once, squeue silently leaves out those that do not answer.
    """
    sorted_names = sorted(set(names))
    found = []
    for cluster in sorted(clusters, key=str):
        # A run of hundreds of iterations has thousands of jobs, too many names for one command line.
        for start in range(0, len(sorted_names), 500):
            chosen = ",".join(sorted_names[start : start + 500])
            out = _ask(
                [
                    *_asking("squeue", cluster),
                    "--all",
                    "--array",
                    "--noheader",
                    "--states=all",
                    f"--name={chosen}",
                    f"--format={_FORMAT}",
                ]
            )
            found += [_task(line, cluster) for line in out.splitlines() if line.count("|") >= 6]
    return found


def _asking(program: str, cluster: str | None) -> list[str]:
    """The start of a command to one cluster."""
    return [program] if cluster is None else [program, f"--clusters={cluster}"]


def _by_cluster(jobs: Iterable[str]) -> Iterator[tuple[str | None, list[str]]]:
    """Clusters, each with the numbers of its jobs among `jobs`."""
    for name, mine in groupby(sorted(jobs, key=lambda job: cluster_of(job) or ""), key=cluster_of):
        yield name, [number_of(job) for job in mine]


def _task(line: str, cluster: str | None) -> QueueEntry:
    job, index, state, reason, node, name, folder = line.split("|", 6)
    array = _is_number(index)
    return QueueEntry(
        name,
        job_on(f"{job}_{index}" if array else job, cluster),
        int(index) if array else 0,
        state,
        reason.replace(" ", "_") if reason != "None" else "",
        node.strip("()"),
        folder,
    )


def _is_number(text: str) -> bool:
    """Whether `text` is a number as SLURM prints them: digits, and no more than a number of it has."""
    return text.isascii() and text.isdecimal() and len(text) <= 18


def seconds_of(text: str) -> float:
    """A duration as sinfo prints it (4:05, 1-02:03:04); infinity for none or unlimited."""
    days, dash, clock = text.rpartition("-")
    parts = clock.split(":")
    if not all(map(_is_number, parts)) or (dash and not _is_number(days)):
        return float("inf")
    seconds = 0
    for part in parts:
        seconds = seconds * 60 + int(part)
    return float(int(days or 0) * 86400 + seconds)


def states_in_accounting(jobs: Sequence[str]) -> dict[str, str]:
    """The final states of tasks, by job, from sacct, which keeps jobs longer than squeue. Empty where the cluster has no accounting."""
    if not jobs or not _keeps_accounts():
        return {}
    ends = {}
    for cluster, numbers in _by_cluster(jobs):
        out = _ask(
            [
                *_asking("sacct", cluster),
                "--allocations",
                "--noheader",
                "--parsable2",
                "--format=JobID,State",
                f"--jobs={','.join(numbers)}",
            ]
        )
        rows = (line.partition("|") for line in out.splitlines() if "|" in line)
        ends.update({job_on(number, cluster): state.split(" ")[0] for number, _, state in rows})
    return ends


@cache
def _keeps_accounts() -> bool:
    if shutil.which("sacct") is None:
        return False
    try:
        _ask(["sacct", "--allocations", "--noheader", "--jobs=1"])
    except SlurmUnavailable:
        return False
    return True


def cancel(jobs: Sequence[str]) -> None:
    """Cancel `jobs`; jobs that have already ended are ignored. Raises SlurmUnavailable."""
    for cluster, numbers in _by_cluster(jobs):
        for start in range(0, len(numbers), 500):
            _ask([*_asking("scancel", cluster), *numbers[start : start + 500]])


def release(jobs: Sequence[str]) -> None:
    """Let held jobs start. Raises SlurmUnavailable."""
    for cluster, numbers in _by_cluster(jobs):
        _ask([*_asking("scontrol", cluster), "release", *numbers])


@cache
def largest_array(cluster: str | None = None) -> int:
    """The most tasks that an array may have on a cluster (MaxArraySize). Raises SlurmUnavailable."""
    said = _setting("MaxArraySize", cluster)
    if not _is_number(said):
        raise SlurmUnavailable(f"scontrol show config says MaxArraySize = {said[:40]}, which is no number")
    return max(1, int(said))


def _setting(key: str, cluster: str | None) -> str:
    """A value of a cluster's configuration."""
    for line in _ask([*_asking("scontrol", cluster), "show", "config"]).splitlines():
        name, _, value = line.partition("=")
        if name.strip() == key:
            return value.strip()
    raise SlurmUnavailable(f"scontrol show config names no {key}")


def partitions(clusters: Collection[str | None] = (None,)) -> dict[str, float]:
    """The time limit of every partition, in seconds. Raises SlurmUnavailable.

    Where several clusters have a partition of that name, the longest limit counts: sbatch picks a cluster that fits.
    """
    limits: dict[str, float] = {}
    for cluster in clusters:
        out = _ask([*_asking("sinfo", cluster), "--all", "--noheader", "--format=%R|%l"])
        for name, _, limit in (line.partition("|") for line in out.splitlines() if "|" in line):
            limits[name] = max(limits.get(name, 0.0), seconds_of(limit))
    return limits


def help_of(program: str) -> str:
    """What `program --help` prints; plugins add their options to it. Raises SlurmUnavailable."""
    return _ask([program, "--help"])


def submit_dry(script: str, keep: Collection[str]) -> str:
    """The answer of sbatch --test-only to `script`: when and where it would start. Raises SlurmUnavailable with sbatch's objection.

    keep: see `clean_environment`.
    """
    return _ask(["sbatch", "--test-only"], given=script, keep=keep)


def clean_environment(keep: Collection[str] = ()) -> dict[str, str]:
    """The environment without the variables of an enclosing SLURM job, and without the user's defaults for SLURM's commands, except `keep`.

    A job submitted from another job must not inherit its variables, answers must not depend on SQUEUE_PARTITION, and SBATCH_TIMELIMIT would
    override every script. The user's choice of clusters goes into scripts and commands instead: a task that inherited the variable would be
    requeued elsewhere.
    """
    kept = ("SLURM_CONF", *keep)
    return {
        name: value for name, value in os.environ.items() if name in kept or not name.startswith(_OF_SLURM)
    }


def _ask(command: list[str], given: str | None = None, keep: Collection[str] = ()) -> str:
    """The standard output of `command`, or, with input `given` (--test-only answers there), its standard error."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            # Names and folders of jobs need not be UTF-8.
            errors="replace",
            input=given or "",
            timeout=SECONDS_TO_ANSWER,
            env=clean_environment(keep),
            check=False,
        )
    except FileNotFoundError:
        raise missing(command[0]) from None
    except subprocess.TimeoutExpired:
        raise SlurmUnavailable(f"{command[0]} gave no answer for {SECONDS_TO_ANSWER} s") from None
    if done.returncode:
        message = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        # The message becomes part of a sentence: strip "squeue: error: " and "slurm_load_jobs error: ".
        raise SlurmUnavailable(re.sub(r"^(\w+: )?((\w+ )?error: )*", "", message))
    return done.stdout if given is None else " ".join(done.stderr.split())

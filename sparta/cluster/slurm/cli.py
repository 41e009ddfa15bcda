"""What SLURM's own commands say: squeue, sacct, sinfo, scontrol, scancel. The only module that runs them, submission aside."""

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

LIVE = frozenset(
    (
        "PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING", "REQUEUED",
        "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD",
    )
)  # fmt: skip
"""States of a task that is in the queue; every other state is an end."""

_HOPELESS = {
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
    """In words, a reason for waiting that time alone does not remove; None for every other. SLURM itself removes a job whose dependency failed."""
    if _OF_ONE_JOB.fullmatch(reason):
        return "it asks for more, or less, than a single job of the account or QOS may"
    return _HOPELESS.get(reason)


SECONDS_TO_ANSWER = 60
_OF_SLURM = ("SLURM_", "SLURMD_", "SRUN_", "SBATCH_", "SUBMITIT_", "SQUEUE_", "SINFO_", "SACCT_", "SCANCEL_")
_FORMAT = "%F|%K|%T|%r|%N|%j|%Z"


class SlurmUnavailable(Exception):
    """A command of SLURM did not answer; str: what it said."""


def job_on(number: str, cluster: str | None) -> str:
    """The name of a job here: its number, or NUMBER@CLUSTER where it is on a cluster that had to be named: numbers of two clusters may be equal."""
    return number if cluster is None else f"{number}@{cluster}"


def number_of(job: str) -> str:
    """A job as its own cluster calls it."""
    return job.partition("@")[0]


def cluster_of(job: str) -> str | None:
    """The cluster to ask about a job; None for the one that SLURM's commands ask by themselves."""
    return job.partition("@")[2] or None


class QueueEntry(NamedTuple):
    """A job, or one task of an array. job: see `job_on`. element: its number in the array, 0 where it is none. folder: where it works."""

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
        return self.state in LIVE

    @property
    def whole(self) -> str:
        """The id of the job that it is part of."""
        return job_on(number_of(self.job).partition("_")[0], cluster_of(self.job))


@contextmanager
def answering(remedy: str = "try again when it does") -> Iterator[None]:
    """Turns the controller's silence in the block into the SpartaError that says so and what to do."""
    try:
        yield
    except SlurmUnavailable as error:
        raise SpartaError(f"SLURM does not answer ({error}): {remedy}") from None


def missing(program: str) -> SpartaError:
    """The sentence for a command of SLURM that is not there."""
    return SpartaError(
        f"{program} is not on PATH: log in where SLURM's commands are or load its module, or go without SLURM with --cluster local"
    )


def require(*programs: str) -> None:
    """Raises SpartaError for the first of `programs`, commands of SLURM, that is not there."""
    for program in programs:
        if shutil.which(program) is None:
            raise missing(program)


def installed() -> bool:
    """Whether jobs can be submitted from this machine."""
    return shutil.which("sbatch") is not None


def clusters_of_user() -> tuple[str, ...]:
    """The clusters that a person's environment has sbatch choose from, in sbatch's own variables; none where they are silent."""
    named = os.environ.get("SBATCH_CLUSTERS") or os.environ.get("SLURM_CLUSTERS") or ""
    return tuple(name.strip() for name in named.split(",") if name.strip())


def clusters_to_ask(chosen: Sequence[str]) -> tuple[str, ...]:
    """The clusters that may have a job for which sbatch chooses from these, `all` or none; none where there is but one. Raises SlurmUnavailable.

    Where there are several, the one that is asked by itself has to be named, too: somebody on another's machines may ask about the job.
    """
    if "all" in chosen:
        return known_clusters()
    if chosen or not several_clusters():
        return tuple(dict.fromkeys(chosen))
    return (_setting("ClusterName", None),)


@cache
def known_clusters() -> tuple[str, ...]:
    """The clusters that SLURM's accounting knows. Raises SlurmUnavailable where there is none."""
    out = _ask(["sacctmgr", "--noheader", "--parsable2", "show", "clusters", "format=Cluster"])
    return tuple(line.strip() for line in out.splitlines() if line.strip())


def several_clusters() -> tuple[str, ...]:
    """Those that SLURM's accounting knows, where they are several; none where it knows one or there is no accounting to be asked."""
    try:
        known = known_clusters() if shutil.which("sacctmgr") else ()
    except SlurmUnavailable:
        return ()
    return known if len(known) > 1 else ()


def tasks_named(names: Iterable[str], clusters: Collection[str | None] = (None,)) -> list[QueueEntry]:
    """Tasks of the jobs called `names` that squeue knows on these clusters, those included that ended minutes ago. Raises SlurmUnavailable.

    Each cluster is asked alone: of several, squeue leaves out without an error those that do not answer.
    """
    wanted = sorted(set(names))
    found = []
    for cluster in sorted(clusters, key=str):
        # A command line is finite: a run of hundreds of iterations has thousands of jobs.
        for start in range(0, len(wanted), 500):
            chosen = ",".join(wanted[start : start + 500])
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
    """The beginning of a command to one cluster."""
    return [program] if cluster is None else [program, f"--clusters={cluster}"]


def _by_cluster(jobs: Iterable[str]) -> Iterator[tuple[str | None, list[str]]]:
    """Clusters, each with the numbers of those of `jobs` that it has."""
    for name, mine in groupby(sorted(jobs, key=lambda job: cluster_of(job) or ""), key=cluster_of):
        yield name, [number_of(job) for job in mine]


def _task(line: str, cluster: str | None) -> QueueEntry:
    job, index, state, reason, node, name, folder = line.split("|", 6)
    array = index.isdigit()
    return QueueEntry(
        name,
        job_on(f"{job}_{index}" if array else job, cluster),
        int(index) if array else 0,
        state,
        reason.replace(" ", "_") if reason != "None" else "",
        node.strip("()"),
        folder,
    )


def seconds_of(text: str) -> float:
    """A duration as sinfo prints it (4:05, 1-02:03:04); infinity for none or unlimited."""
    days, dash, clock = text.rpartition("-")
    parts = clock.split(":")
    if not all(part.isdigit() for part in parts) or (dash and not days.isdigit()):
        return float("inf")
    seconds = 0
    for part in parts:
        seconds = seconds * 60 + int(part)
    return float(int(days or 0) * 86400 + seconds)


def ends_in_accounts(jobs: Sequence[str]) -> dict[str, str]:
    """State in which tasks ended, by job, from sacct: it remembers what squeue has forgotten. Empty where the cluster keeps no accounts."""
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
        rows = (line.split("|") for line in out.splitlines() if "|" in line)
        ends.update({job_on(number, cluster): state.split(" ")[0] for number, state in rows})
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
    """End `jobs`; those that have ended already do no harm. Raises SlurmUnavailable."""
    for cluster, numbers in _by_cluster(jobs):
        for start in range(0, len(numbers), 500):
            _ask([*_asking("scancel", cluster), *numbers[start : start + 500]])


def release(jobs: Sequence[str]) -> None:
    """Let held jobs start. Raises SlurmUnavailable."""
    for cluster, numbers in _by_cluster(jobs):
        _ask([*_asking("scontrol", cluster), "release", *numbers])


@cache
def largest_array(cluster: str | None = None) -> int:
    """Most tasks that an array may have there (MaxArraySize). Raises SlurmUnavailable."""
    return max(1, int(_setting("MaxArraySize", cluster)))


def _setting(key: str, cluster: str | None) -> str:
    """From the configuration of a cluster."""
    for line in _ask([*_asking("scontrol", cluster), "show", "config"]).splitlines():
        name, _, value = line.partition("=")
        if name.strip() == key:
            return value.strip()
    raise SlurmUnavailable(f"scontrol show config names no {key}")


def partitions(clusters: Collection[str | None] = (None,)) -> dict[str, float]:
    """Time limit of every partition, in seconds, the longest where several clusters have it: sbatch takes one that fits. Raises SlurmUnavailable."""
    limits: dict[str, float] = {}
    for cluster in clusters:
        out = _ask([*_asking("sinfo", cluster), "--all", "--noheader", "--format=%R|%l"])
        for name, _, limit in (line.partition("|") for line in out.splitlines() if "|" in line):
            limits[name] = max(limits.get(name, 0.0), seconds_of(limit))
    return limits


def submit_dry(script: str, keep: Collection[str]) -> str:
    """What sbatch says to `script` without queueing it: when and where it would start. Raises Silent with its objection.

    keep: see `free_of_this_job`.
    """
    return _ask(["sbatch", "--test-only"], given=script, keep=keep)


def free_of_this_job(keep: Collection[str] = ()) -> dict[str, str]:
    """The environment without what SLURM told the job that this process may run in, and without the user's defaults for its commands.

    A job submitted from another must not inherit that, an answer must not depend on SQUEUE_PARTITION, and SBATCH_TIMELIMIT would override
    every script; variables in `keep` stay. A person's choice of clusters is said in scripts and commands: a task that inherited it would be
    requeued elsewhere.
    """
    kept = ("SLURM_CONF", *keep)
    return {
        name: value for name, value in os.environ.items() if name in kept or not name.startswith(_OF_SLURM)
    }


def _ask(command: list[str], given: str | None = None, keep: Collection[str] = ()) -> str:
    """Standard output of `command`; for --test-only, which answers there, standard error."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            input=given or "",
            timeout=SECONDS_TO_ANSWER,
            env=free_of_this_job(keep),
            check=False,
        )
    except FileNotFoundError:
        raise missing(command[0]) from None
    except subprocess.TimeoutExpired:
        raise SlurmUnavailable(f"{command[0]} gave no answer for {SECONDS_TO_ANSWER} s") from None
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        # "squeue: error: ..." and "slurm_load_jobs error: ..." are for a terminal, this becomes part of a sentence.
        raise SlurmUnavailable(re.sub(r"^(\w+: )?((\w+ )?error: )*", "", said))
    return done.stdout if given is None else " ".join(done.stderr.split())

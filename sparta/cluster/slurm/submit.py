"""Submits the shards of an attempt: one array, or several where the cluster limits the size of arrays.

submitit makes the script and the pickles, and runs inside the job. This module calls sbatch itself, for three reasons: a time-out, retries while
the controller does not answer, and a job id that is parsed reliably instead of taken from the first number in the output.
"""

import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from sparta.cluster.slurm import cli
from sparta.cluster.slurm.cli import SlurmUnavailable
from sparta.cluster.slurm.container import (
    STATUS_KEPT,
    Mount,
    python_command,
    requeue_lines,
    setup_lines,
    srun_options,
)
from sparta.cluster.slurm.job_ids import of_this_state
from sparta.cluster.slurm.profile import Profile, Resources
from sparta.cluster.slurm.worker import ShardJob
from sparta.errors import SpartaError
from sparta.store import files

SECONDS_TO_SUBMIT = 180.0
"""Time-out of sbatch, which itself retries for up to two minutes where the controller is busy."""
SECONDS_BETWEEN_TRIES = (2.0, 30.0)
"""Pause before sbatch is called again when the controller did not answer: at first, and at most."""

_SILENT = re.compile(
    r"socket timed out|unable to contact|temporarily un(able|available)|standby|connection (refused|reset|timed out)|zero bytes|slurmctld",
    re.IGNORECASE,
)
"""Messages of sbatch after which nobody knows whether the job was queued."""
_ANSWER = re.compile(
    r"Submitted batch job ([0-9]{1,18})\b(?: on cluster ([\w.-]+))?|^([0-9]{1,18})(?:;([\w.-]+))?\s*$",
    re.MULTILINE,
)
"""The answer of sbatch for a queued job: a sentence, or, with --parsable, number and cluster."""
_REMEDIES = [
    (re.compile(words, re.IGNORECASE), remedy)
    for words, remedy in (
        (
            r"(QOS|Assoc)\w*(Max|Limit)|job submit limit|MaxJobCount|violates accounting",
            "a limit of the cluster is reached: wait until other jobs have ended, or submit fewer jobs (a smaller cluster.tasks, fewer --iters),",
        ),
        (
            r"writing script/environment",
            "the disk of SLURM's controller is full or fails: tell the cluster's administrators,",
        ),
        (
            r"quota|no space left|read-only file system|input/output error|stale file handle",
            "a disk or a quota is full, or a disk fails: free space there",
        ),
        (
            r"munge|credential|authentication|invalid user|access/permission denied",
            "SLURM does not accept you on this machine: log in where you may submit jobs, or ask the cluster's administrators,",
        ),
        (
            r"known by database|any of the specified clusters|entry for --cluster|problem talking to the database",
            "correct the clusters in the profile or in SLURM_CLUSTERS (sacctmgr show clusters lists them), or what the job asks for there,",
        ),
        (
            r"dependency",
            "a job that this one depends on is gone: wait for what is queued, or end it with --cancel,",
        ),
        (
            r"\b(account|partition|qos|constraint|feature|reservation|gres|gpus?|memory|cpus?|processors?|nodes?|time ?limit|option|argument|license|wckey)s?\b",
            "correct the profile",
        ),
    )
]
"""Causes and remedies by sbatch's message; the first match counts."""
_OTHERWISE = "correct what it names, in the profile or on the cluster,"


@dataclass(frozen=True)
class Array:
    """One job array: `work` for shards first to first + count - 1, at most `throttle` of them at the same time."""

    name: str
    work: ShardJob
    first: int
    count: int
    throttle: int
    resources: Resources
    logs: Path
    code: Path
    dependency: str | None = None
    hold: bool = False
    clusters: tuple[str, ...] = ()
    """Clusters that sbatch chooses from; empty: the default cluster."""
    places: tuple[str, ...] = ()
    """Clusters to ask about its job; empty: the default cluster."""
    mounts: tuple[Mount, ...] = ()
    """Of the profile's container."""


def throttles(width: int, sizes: Sequence[int]) -> list[int]:
    """Split `width` tasks at once among arrays of these sizes, at least one each, so that the last array ends as early as possible.

    Raises SpartaError where there are more arrays than `width`.
    """
    if len(sizes) > width:
        raise SpartaError(
            f"a phase would need {len(sizes)} arrays, because arrays are small on this cluster (MaxArraySize), and these cannot be limited to the "
            f"{width} tasks that may run at once: lower cluster.tasks ({width} is small enough), or raise cluster.at_once or the profile's at_once"
        )
    rounds = -(-sum(sizes) // width)
    while sum(-(-size // rounds) for size in sizes) > width:
        rounds += 1
    shares = [-(-size // rounds) for size in sizes]
    # Places that are left over go to the arrays with the most tasks a place.
    for _ in range(min(width, sum(sizes)) - sum(shares)):
        most = max(range(len(sizes)), key=lambda part: sizes[part] / shares[part])
        shares[most] += 1
    return shares


def parameters(array: Array, profile: Profile) -> dict[str, Any]:
    """submitit's parameters for `array`; None: not requested."""
    asked = array.resources
    more: dict[str, Any] = {"requeue": True, "kill-on-invalid-dep": "yes", "chdir": str(array.code)}
    if array.hold:
        more["hold"] = True
    if array.clusters:
        more["clusters"] = ",".join(array.clusters)
    container = profile.container
    # Of srun, not of sbatch: the script itself needs SLURM's commands, and the setup of the host.
    inside = srun_options(container, array.mounts, array.code) if container else []
    gpus = f"{asked.gpu_type}:{asked.gpus}" if asked.gpus and asked.gpu_type else asked.gpus
    return {
        "job_name": array.name,
        "time": asked.minutes,
        "cpus_per_task": asked.cpus,
        "mem": asked.memory,
        "gpus_per_node": gpus if gpus and profile.gpus_by == "gpus-per-node" else None,
        "gres": f"gpu:{gpus}" if gpus and profile.gpus_by == "gres" else None,
        "nodes": 1,
        "ntasks_per_node": 1,
        "partition": asked.partition,
        "qos": asked.qos,
        "account": asked.account,
        "constraint": asked.constraint,
        "exclude": ",".join(asked.exclude) or None,
        "dependency": array.dependency,
        "array_parallelism": array.throttle,
        "signal_delay_s": profile.signal_seconds,
        "stderr_to_stdout": True,
        # Clusters that track wckeys would refuse submitit's default.
        "wckey": None,
        # The snapshot must come first; the working directory, which Python also searches, is the snapshot too.
        "setup": [
            *profile.setup,
            *(setup_lines(container, asked.gpus) if container else ()),
            f'export PYTHONPATH={shlex.quote(str(array.code))}"${{PYTHONPATH:+:$PYTHONPATH}}"',
        ],
        # Since SLURM 22.05 a step does not inherit the job's --cpus-per-task.
        "srun_args": [f"--cpus-per-task={asked.cpus}", *inside, *profile.srun],
        "teardown": requeue_lines() if container else None,
        "additional_parameters": {**more, **profile.sbatch},
    }


def script(array: Array, profile: Profile) -> str:
    """The sbatch script of `array`."""
    from submitit.slurm.slurm import _make_sbatch_string

    container = profile.container
    if container is not None:
        python = python_command(container, array.mounts, array.code, array.resources.gpus)
    else:
        python = profile.python or shlex.quote(sys.executable)
    text: str = _make_sbatch_string(
        command=f"{python} -u -m submitit.core._submit {shlex.quote(str(array.logs))}{STATUS_KEPT if container else ''}",
        folder=array.logs,
        map_count=array.count if array.count > 1 else None,
        **parameters(array, profile),
    )
    return text


def left_to_the_user(array: Array, profile: Profile) -> list[str]:
    """The user's own defaults for sbatch (SBATCH_ACCOUNT and the like) that stay in force because the profile does not set them."""
    asked = array.resources
    by_variable = {
        "SBATCH_ACCOUNT": asked.account,
        "SBATCH_CONSTRAINT": asked.constraint,
        "SBATCH_PARTITION": asked.partition,
        "SBATCH_QOS": asked.qos,
        "SBATCH_RESERVATION": profile.sbatch.get("reservation"),
    }
    return [name for name, value in by_variable.items() if value is None]


def submit(array: Array, profile: Profile, say: Callable[[str], None] = lambda text: None) -> str:
    """Submit `array` and return the job's id (`cli.job_on`). `say` gets one message if SLURM does not answer.

    Raises SpartaError with sbatch's message where it refuses, or where SLURM does not answer for `profile.patience_minutes`.
    """
    cli.require("sbatch", "srun")
    with files.os_errors_named(array.logs):
        # submitit's pickles: no other user may read or replace them.
        array.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        prepared = _StagedScript(array)
        try:
            prepared.write(profile)
            job = _queued(array, prepared.script, profile, say)
            prepared.hand_over(job)
        finally:
            prepared.remove()
    return job


class _StagedScript:
    """The script of an array and the pickles of its tasks, under temporary names until the job's id is known."""

    def __init__(self, array: Array) -> None:
        self._array, mark = array, uuid4().hex
        self.script = array.logs / f".submission_file_{mark}.sh"
        self._pickles = [array.logs / f"{mark}_{index}.pkl" for index in range(array.count)]

    def write(self, profile: Profile) -> None:
        from submitit.helpers import DelayedSubmission

        self.script.write_text(script(self._array, profile), encoding="utf-8")
        for index, path in enumerate(self._pickles):
            task = DelayedSubmission(
                self._array.work, self._array.first + index, float(profile.signal_seconds)
            )
            task.set_timeout(self._array.resources.minutes, profile.max_timeouts)
            task.dump(path)

    def hand_over(self, job: str) -> None:
        """Rename everything to where the tasks of `job`, which may have started, look for it.

        Where a job of another cluster has the same number and so the same files, cancel `job` and raise SpartaError.
        """
        from submitit.core.utils import JobPaths

        number, several = cli.number_of(job), len(self._pickles) > 1
        targets = [
            JobPaths(self._array.logs, f"{number}_{index}" if several else number)
            for index in range(len(self._pickles))
        ]
        if cli.cluster_of(job) and any(target.submitted_pickle.exists() for target in targets):
            with cli.answering(f"end job {job} when it does"):
                cli.cancel([job])
            raise SpartaError(
                f"job {job} has the same number as a job of this phase on another cluster, and was cancelled: run the same command again"
            )
        for path, target in zip(self._pickles, targets, strict=True):
            path.rename(target.submitted_pickle)
        self.script.rename(targets[0].submission_file)

    def remove(self) -> None:
        """Remove what was not handed over."""
        for path in (self.script, *self._pickles):
            with suppress(OSError):  # it would hide the original error
                path.unlink(missing_ok=True)


def _queued(array: Array, path: Path, profile: Profile, say: Callable[[str], None]) -> str:
    """Have sbatch queue `path` and return the job's id. Where SLURM did not answer, a job that it may have queued is cancelled before a retry."""
    patience = profile.patience_minutes * 60
    deadline = time.monotonic() + patience
    pause, most = SECONDS_BETWEEN_TRIES
    silences = 0
    while True:
        try:
            if silences:
                # Without its id, that job can never get its pickles.
                _end([array.name], array.code.parent, array.places)
            job = _ask_sbatch(path, array, profile)
        except SlurmUnavailable as silence:
            left = deadline - time.monotonic()
            if left <= 0:
                raise SpartaError(
                    f"SLURM has not answered for {patience / 60:.0f} min when asked to queue {array.name} ({silence}): run the same command "
                    "again when it does, nothing is lost"
                ) from None
            if not silences:
                say(
                    f"SLURM does not answer when asked to queue {array.name} ({silence}); asking again for {patience / 60:.0f} min"
                )
            silences += 1
            time.sleep(min(pause, left))
            pause = min(1.5 * pause, most)
        except SpartaError as error:
            try:
                cancel_named([array.name], array.code.parent, array.places)
            except SpartaError as more:
                raise SpartaError(f"{error}; {more}") from None
            raise
        else:
            if silences:
                with suppress(SlurmUnavailable):  # a job without pickles stops a minute after its start
                    # A job of an unanswered call may have entered the queue only now.
                    _end([array.name], array.code.parent, array.places, but=job)
            return job


def job_in(answer: str) -> tuple[str, str | None] | None:
    """Number and cluster, if it is named, of the job that sbatch has queued, from what it printed; None where it does not say."""
    answers = _ANSWER.findall(answer)
    if not answers:
        return None
    number, cluster, parsable, other = answers[-1]
    return number or parsable, cluster or other or None


def _ask_sbatch(path: Path, array: Array, profile: Profile) -> str:
    """Run sbatch on `path` and return the id of the job of `array`. Raises SlurmUnavailable, or SpartaError where sbatch refuses."""
    try:
        done = subprocess.run(
            ["sbatch", str(path)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS_TO_SUBMIT,
            env=cli.clean_environment(keep=left_to_the_user(array, profile)),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SlurmUnavailable(f"sbatch gave no answer for {SECONDS_TO_SUBMIT:.0f} s") from None
    except OSError as error:
        raise SpartaError(
            f"{shutil.which('sbatch') or 'sbatch'} could not be run ({error.strerror}): check SLURM's commands and run the same command again"
        ) from None
    if done.returncode:
        message = _words(done.stderr) or _words(done.stdout) or f"exit status {done.returncode}"
        # Warnings may precede the final message.
        if _SILENT.search(message.rpartition("submission failed:")[2]):
            raise SlurmUnavailable(message)
        raise _refused(message, profile)
    if said := job_in(done.stdout):
        number, cluster = said
        only = array.places[0] if len(array.places) == 1 else None
        on = cluster or only
        if on or not array.places:
            return cli.job_on(number, on)
    # A wrapper of sbatch changed its output, or left the cluster out: ask squeue for the job.
    tasks = of_this_state(array.code.parent, cli.tasks_named([array.name], array.places or (None,)))
    live = {task.whole for task in tasks if task.live and task.state != "COMPLETING"}
    jobs = live or {task.whole for task in tasks}
    if len(jobs) != 1:
        raise SpartaError(
            f'sbatch did not say which job it queued: it printed "{_words(done.stdout)}", and squeue knows {len(jobs)} jobs called {array.name}; '
            "check the wrapper that prints it and run the same command again, nothing is lost"
        )
    return jobs.pop()


def cancel_named(names: Sequence[str], code: Path, places: Sequence[str]) -> None:
    """Cancel queued and running jobs of these names whose working directory is below `code`. Raises SpartaError where SLURM does not answer.

    places: the clusters to ask; empty: the default cluster.
    """
    listed = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
    with cli.answering(
        f"jobs may be left ({listed}), the same command or --cancel cancels them when it does"
    ):
        _end(names, code, places)


def _end(names: Sequence[str], code: Path, places: Sequence[str], but: str | None = None) -> None:
    """Cancel live jobs of these names whose working directory is below `code`, except the job `but`. Raises SlurmUnavailable."""
    tasks = of_this_state(code, cli.tasks_named(names, places or (None,)))
    cli.cancel([task.job for task in tasks if task.live and task.whole != but])


def _words(text: str) -> str:
    """The lines of sbatch itself, without those of wrappers; the whole text where there are none."""
    own = " ".join(line.strip() for line in text.splitlines() if line.startswith("sbatch:"))
    return own.replace("sbatch: error: ", "").replace("sbatch: fatal: ", "") or " ".join(text.split())


def _refused(message: str, profile: Profile) -> SpartaError:
    return SpartaError(
        f"sbatch refused a job of profile {profile.name}: {message}; {remedy_for(message)} and run the same command again, nothing is lost"
    )


def remedy_for(message: str) -> str:
    """What to do after sbatch has refused a job with `message`."""
    return next((remedy for cause, remedy in _REMEDIES if cause.search(message)), _OTHERWISE)

"""From tasks to an sbatch script and into the queue: one array for the shards of an attempt, several where the cluster's arrays are small.

Script, pickles and what happens inside the job are submitit's. sbatch is run from here: its answer is waited for, but not for ever; its
silence is borne, like squeue's; and which id a job has is not guessed from the first number that it prints.
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
from sparta.cluster.slurm.job_ids import of_this_state
from sparta.cluster.slurm.profile import Profile, Resources
from sparta.cluster.slurm.worker import ShardJob
from sparta.errors import SpartaError
from sparta.store import files

SECONDS_TO_SUBMIT = 180.0
"""What sbatch is given: asked to come again later by the controller, it does so by itself for two minutes."""
SECONDS_BETWEEN_TRIES = (2.0, 30.0)
"""Before sbatch is asked again after a silence: at first, and at most."""

_SILENT = re.compile(
    r"socket timed out|unable to contact|temporarily un(able|available)|standby|connection (refused|reset|timed out)|zero bytes|slurmctld",
    re.IGNORECASE,
)
"""What sbatch says where the controller has not decided anything, or nobody knows what."""
_ANSWER = re.compile(
    r"Submitted batch job (\d+)(?: on cluster ([\w.-]+))?|^(\d+)(?:;([\w.-]+))?\s*$", re.MULTILINE
)
"""What sbatch says to a job that it has queued: in words, or, asked for --parsable, its number and the cluster."""
_REMEDIES = [
    (re.compile(words, re.IGNORECASE), remedy)
    for words, remedy in (
        (
            r"(QOS|Assoc)\w*(Max|Limit)|job submit limit|MaxJobCount|violates accounting",
            "a limit of the cluster is reached: wait until other jobs have ended, or submit fewer at once (a smaller cluster.tasks, fewer --iters),",
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
"""By what sbatch says, the first that fits: whose fault it is, and what helps."""
_OTHERWISE = "correct what it names, in the profile or on the cluster,"


@dataclass(frozen=True)
class Array:
    """Tasks to be submitted together: `work` for shards first to first + count - 1, at most `throttle` of them at once."""

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
    """Those that sbatch chooses from; none for the one that SLURM's commands ask by themselves."""
    places: tuple[str, ...] = ()
    """Those to ask for its job; none as above."""


def throttles(width: int, sizes: Sequence[int]) -> list[int]:
    """`width` tasks at once shared out to arrays of these sizes, at least one each, so that the last of them ends as early as it can.

    Raises SpartaError where the arrays are more than that.
    """
    if len(sizes) > width:
        raise SpartaError(
            f"a phase would be {len(sizes)} jobs, since arrays are small on this cluster (MaxArraySize), and no array holds those back to the "
            f"{width} that may run at once: lower cluster.tasks (at most {width} will do), or raise cluster.at_once or the profile's at_once"
        )
    rounds = -(-sum(sizes) // width)
    while sum(-(-size // rounds) for size in sizes) > width:
        rounds += 1
    shares = [-(-size // rounds) for size in sizes]
    # What is left over spares the arrays with most tasks a place.
    for _ in range(min(width, sum(sizes)) - sum(shares)):
        most = max(range(len(sizes)), key=lambda part: sizes[part] / shares[part])
        shares[most] += 1
    return shares


def parameters(array: Array, profile: Profile) -> dict[str, Any]:
    """What submitit is told of `array`; None: not asked for."""
    asked = array.resources
    more: dict[str, Any] = {"requeue": True, "kill-on-invalid-dep": "yes", "chdir": str(array.code)}
    if array.hold:
        more["hold"] = True
    if array.clusters:
        more["clusters"] = ",".join(array.clusters)
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
        # submitit's own default is a key that clusters which track them would refuse.
        "wckey": None,
        # The copy comes first: the interpreter also looks in its working folder, which is the copy too.
        "setup": [
            *profile.setup,
            f'export PYTHONPATH={shlex.quote(str(array.code))}"${{PYTHONPATH:+:$PYTHONPATH}}"',
        ],
        # Since SLURM 22.05 a step does not take the job's cores unless it asks.
        "srun_args": [f"--cpus-per-task={asked.cpus}", *profile.srun],
        "additional_parameters": {**more, **profile.sbatch},
    }


def script(array: Array, profile: Profile) -> str:
    """The sbatch script that `submit` would hand in."""
    from submitit.slurm.slurm import _make_sbatch_string

    python = profile.python or shlex.quote(sys.executable)
    text: str = _make_sbatch_string(
        command=f"{python} -u -m submitit.core._submit {shlex.quote(str(array.logs))}",
        folder=array.logs,
        map_count=array.count if array.count > 1 else None,
        **parameters(array, profile),
    )
    return text


def left_to_the_user(array: Array, profile: Profile) -> list[str]:
    """Variables with a person's own defaults for sbatch (SBATCH_ACCOUNT and the like) that hold because the profile says nothing of it."""
    asked = array.resources
    said = {
        "SBATCH_ACCOUNT": asked.account,
        "SBATCH_CONSTRAINT": asked.constraint,
        "SBATCH_PARTITION": asked.partition,
        "SBATCH_QOS": asked.qos,
        "SBATCH_RESERVATION": profile.sbatch.get("reservation"),
    }
    return [name for name, value in said.items() if value is None]


def submit(array: Array, profile: Profile, say: Callable[[str], None] = lambda text: None) -> str:
    """Hand `array` in; the job's id (`cli.job_on`). `say` is told, once, that SLURM does not answer.

    Raises SpartaError with sbatch's own words where it refuses, or where nothing is heard for `profile.patience_minutes`.
    """
    cli.require("sbatch", "srun")
    with files.os_errors_named(array.logs):
        # Pickles lie there, which nobody else may put or read.
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
    """The script of an array and the pickles of its tasks, under names that say no job yet."""

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
        """Put everything where the tasks of `job`, which may have started, look for it.

        Raises SpartaError, the job withdrawn, where a job of another cluster has its number, and so its files.
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
                f"job {job} has the number of another job of this phase on another cluster, and was withdrawn: run the same command again"
            )
        for path, target in zip(self._pickles, targets, strict=True):
            path.rename(target.submitted_pickle)
        self.script.rename(targets[0].submission_file)

    def remove(self) -> None:
        """Leave nothing that was not handed over."""
        for path in (self.script, *self._pickles):
            with suppress(OSError):  # an error that is on its way says more
                path.unlink(missing_ok=True)


def _queued(array: Array, path: Path, profile: Profile, say: Callable[[str], None]) -> str:
    """Have sbatch queue `path`; the job's id. After a silence, what may be there is withdrawn before sbatch is asked again."""
    patience = profile.patience_minutes * 60
    give_up = time.monotonic() + patience
    pause, most = SECONDS_BETWEEN_TRIES
    silences = 0
    while True:
        try:
            if silences:
                # Nobody heard that job's id, and without it nobody gives it its work.
                _end([array.name], array.code.parent, array.places)
            job = _ask_sbatch(path, array, profile)
        except SlurmUnavailable as silence:
            left = give_up - time.monotonic()
            if left <= 0:
                raise SpartaError(
                    f"SLURM has not answered for {patience / 60:.0f} min, last asked to queue {array.name} ({silence}): run the same command "
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
                withdraw([array.name], array.code.parent, array.places)
            except SpartaError as more:
                raise SpartaError(f"{error}; {more}") from None
            raise
        else:
            if silences:
                with suppress(
                    SlurmUnavailable
                ):  # a job without its work ends by itself, a minute after it began
                    # One that sbatch was silent about may have come into the queue only now.
                    _end([array.name], array.code.parent, array.places, but=job)
            return job


def _ask_sbatch(path: Path, array: Array, profile: Profile) -> str:
    """Run sbatch on `path`; the id of the job of `array`. Raises Silent, or SpartaError where it refuses."""
    try:
        done = subprocess.run(
            ["sbatch", str(path)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS_TO_SUBMIT,
            env=cli.free_of_this_job(keep=left_to_the_user(array, profile)),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SlurmUnavailable(f"sbatch gave no answer for {SECONDS_TO_SUBMIT:.0f} s") from None
    except OSError as error:
        raise SpartaError(
            f"{shutil.which('sbatch') or 'sbatch'} could not be run ({error.strerror}): see to SLURM's commands and run the same command again"
        ) from None
    if done.returncode:
        said = _words(done.stderr) or _words(done.stdout) or f"exit status {done.returncode}"
        # Complaints may precede the verdict.
        if _SILENT.search(said.rpartition("submission failed:")[2]):
            raise SlurmUnavailable(said)
        raise _refused(said, profile)
    if answers := _ANSWER.findall(done.stdout):
        number, cluster, parsable, other = answers[-1]
        only = array.places[0] if len(array.places) == 1 else None
        there = cluster or other or only
        if there or not array.places:
            return cli.job_on(number or parsable, there)
    # A wrapper that says it in words of its own, or not where; the controller knows whom it has queued.
    tasks = of_this_state(array.code.parent, cli.tasks_named([array.name], array.places or (None,)))
    living = {task.whole for task in tasks if task.live and task.state != "COMPLETING"}
    jobs = living or {task.whole for task in tasks}
    if len(jobs) != 1:
        raise SpartaError(
            f'sbatch did not say which job it queued: it printed "{_words(done.stdout)}", and squeue knows {len(jobs)} jobs called {array.name}; '
            "see to what answers in sbatch's place and run the same command again, nothing is lost"
        )
    return jobs.pop()


def withdraw(names: Sequence[str], code: Path, places: Sequence[str]) -> None:
    """End what is queued or running under these names and works below `code`. Raises SpartaError where SLURM does not answer.

    places: the clusters to ask; none for the one that SLURM's commands ask by themselves.
    """
    listed = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
    with cli.answering(f"jobs may be left ({listed}), the same command or --cancel ends them when it does"):
        _end(names, code, places)


def _end(names: Sequence[str], code: Path, places: Sequence[str], but: str | None = None) -> None:
    """Cancel what lives under these names and works below `code`, the job `but` excepted. Raises Silent."""
    tasks = of_this_state(code, cli.tasks_named(names, places or (None,)))
    cli.cancel([task.job for task in tasks if task.live and task.whole != but])


def _words(text: str) -> str:
    """What sbatch said, without what its wrappers said; all of it where it said nothing."""
    said = " ".join(line.strip() for line in text.splitlines() if line.startswith("sbatch:"))
    return said.replace("sbatch: error: ", "").replace("sbatch: fatal: ", "") or " ".join(text.split())


def _refused(said: str, profile: Profile) -> SpartaError:
    return SpartaError(
        f"sbatch refused a job of profile {profile.name}: {said}; {remedy_for(said)} and run the same command again, nothing is lost"
    )


def remedy_for(said: str) -> str:
    """What to do when sbatch has refused a job with these words."""
    return next((remedy for cause, remedy in _REMEDIES if cause.search(said)), _OTHERWISE)

"""From tasks to an sbatch script, through submitit: one array for the shards of an attempt, several where the cluster's arrays are small."""

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from sparta.cluster.slurm import controller
from sparta.cluster.slurm.job import Work
from sparta.cluster.slurm.profile import Profile, Resources
from sparta.errors import SpartaError
from sparta.store import files


@dataclass(frozen=True)
class Array:
    """Tasks to be submitted together: `work` for shards first to first + count - 1, at most `throttle` of them at once."""

    name: str
    work: Work
    first: int
    count: int
    throttle: int
    resources: Resources
    logs: Path
    code: Path
    dependency: str | None = None
    hold: bool = False


def throttles(width: int, parts: int) -> list[int]:
    """`width` tasks at once shared out to so many arrays, at least one each."""
    return [max(1, width * (part + 1) // parts - width * part // parts) for part in range(parts)]


def parameters(array: Array, profile: Profile) -> dict[str, Any]:
    """What submitit is told of `array`; None: not asked for."""
    asked = array.resources
    more: dict[str, Any] = {"requeue": True, "kill-on-invalid-dep": "yes", "chdir": str(array.code)}
    if array.hold:
        more["hold"] = True
    return {
        "job_name": array.name,
        "time": asked.minutes,
        "cpus_per_task": asked.cpus,
        "mem": asked.memory,
        "gpus_per_node": (f"{asked.gpu_type}:{asked.gpus}" if asked.gpu_type else asked.gpus)
        if asked.gpus
        else None,
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


def submit(array: Array, profile: Profile) -> str:
    """Hand `array` in; the job's id. Raises SpartaError with sbatch's own words where it is refused; nothing of it is queued then."""
    import submitit
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    with files.touching(array.logs):
        # submitit keeps pickles there, which nobody else may put or read.
        array.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not controller.installed():
        raise SpartaError(
            "sbatch is not on PATH: log in where SLURM's commands are or load its module, or go without SLURM with --cluster local"
        )
    shards = range(array.first, array.first + array.count)
    with _environment_of_a_login(), files.touching(array.logs):
        executor = submitit.SlurmExecutor(
            array.logs, max_num_timeout=profile.max_timeouts, python=profile.python
        )
        executor.update_parameters(**parameters(array, profile))
        try:
            # submitit prints what sbatch says to an error that it raises as well.
            with redirect_stderr(StringIO()):
                jobs = (
                    executor.map_array(array.work, shards)
                    if array.count > 1
                    else [executor.submit(array.work, array.first)]
                )
        except (FailedJobError, FailedSubmissionError) as error:
            withdraw([array.name])
            raise _refused(error, profile) from error
    return str(jobs[0].job_id).partition("_")[0]


def withdraw(names: Sequence[str]) -> None:
    """End whatever is queued or running under these names. Raises SpartaError where SLURM does not answer."""
    try:
        controller.cancel([task.job for task in controller.tasks_named(names) if task.live])
    except controller.Silent as error:
        raise SpartaError(
            f"SLURM does not answer ({error}), so jobs may be left: run scancel --name={','.join(names)} when it does"
        ) from None


def _refused(error: Exception, profile: Profile) -> SpartaError:
    said = " ".join(line.strip() for line in str(error).splitlines() if line.startswith("sbatch:"))
    said = said.replace("sbatch: error: ", "").replace("sbatch: fatal: ", "") or " ".join(str(error).split())
    return SpartaError(
        f"sbatch refused a job of profile {profile.name}: {said}; correct the profile and run the same command again, nothing is lost"
    )


@contextmanager
def _environment_of_a_login() -> Iterator[None]:
    """The block's environment is free of what SLURM told the job that this process may run in."""
    before = dict(os.environ)
    clean = controller.free_of_this_job()
    for name in before.keys() - clean.keys():
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(before)

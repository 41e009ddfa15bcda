"""Checkpoints of a training job, so that a killed one is resumed from a whole checkpoint of the same job or not at all.

A checkpoint folder is written by the trainer file by file, and a kill may come between any two of them. The seal, written last, lists its
files and their digests; a folder without a seal that holds is not a checkpoint.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from sparta.errors import SpartaError
from sparta.store import files
from sparta.training.adapter_folder import CONFIG, WEIGHTS
from sparta.training.job import AnyJob, PreferenceExample, SftExample, TrainingJob

SEAL = "SEAL.json"
IDENTITY = "job.json"
_LOOP = {"DPO": ("own loop",)}
"""What trains, where it was something else once, whose checkpoints cannot be read any more."""
_EARLIER = {"DPO": False, "SFT": True}
"""gradient_checkpointing, as jobs of earlier versions had it in their identity; it decides no weight."""
KEPT = 2
"""Checkpoints kept: should the newest be torn, there is the one before."""


def job_identity(
    job: AnyJob, examples: Sequence[PreferenceExample] | Sequence[SftExample], dtype: str
) -> str:
    """Digest of all that decides the weights this job ends with; two jobs may share checkpoints exactly if it is equal."""
    digest = hashlib.sha256()
    settings = job.settings.model_dump(mode="json", exclude={"save_updates", "liger"})
    settings |= {"epochs": job.epochs, "gradient_checkpointing": _EARLIER[job.method]}
    if settings["optimizer"] == "adamw":
        # The only one of earlier versions, whose identity did not name it.
        del settings["optimizer"]
    digest.update(
        json.dumps(
            [job.base, dtype, job.seed, settings, *_LOOP.get(job.method, ()), *_loss(job), *_base(job)],
            sort_keys=True,
        ).encode()
    )
    for name in (CONFIG, WEIGHTS):
        digest.update(files.sha256_file(job.adapter / name).encode())
    for example in examples:
        digest.update(repr(tuple(vars(example).values())).encode())
    return digest.hexdigest()


def _loss(job: AnyJob) -> tuple[float, ...]:
    """What says which loss the job trains by, if it is not the usual one."""
    return (job.eta,) if isinstance(job, TrainingJob) and job.eta is not None else ()


def _base(job: AnyJob) -> tuple[str, ...]:
    """How the base is quantised, if it is."""
    return () if job.quantize is None else (job.quantize,)


def open_work(work: Path, identity: str) -> Path | None:
    """Makes `work` ready for the job of this identity; the newest whole checkpoint in it, or None where there is none.

    Torn checkpoints, and everything of a job with another identity, are removed.
    """
    if _identity_of(work) != identity:
        files.remove(work)
        files.write_json(work / IDENTITY, {"identity": identity})
        return None
    newest = None
    for checkpoint in checkpoints_in(work):
        if is_sealed(checkpoint):
            newest = checkpoint
        else:
            files.remove(checkpoint)
    return newest


def checkpoints_in(work: Path) -> list[Path]:
    """The folders of checkpoints in `work`, whole or not, the oldest first."""
    found = {path: path.name.removeprefix("checkpoint-") for path in work.glob("checkpoint-*")}
    return sorted(
        (path for path, number in found.items() if number.isdigit()), key=lambda path: int(found[path])
    )


def seal(checkpoint: Path) -> None:
    """Declares `checkpoint` whole: its files are on the disk before the seal is."""
    with files.os_errors_named(checkpoint):
        contents = {}
        for path in sorted(path for path in checkpoint.iterdir() if path.is_file()):
            files.sync(path)
            contents[path.name] = files.sha256_file(path)
        files.sync(checkpoint)
    files.write_json(checkpoint / SEAL, contents)


def is_sealed(checkpoint: Path) -> bool:
    """Whether every file the seal of `checkpoint` lists is there and unchanged."""
    try:
        contents = files.read_json(checkpoint / SEAL, dict[str, str])
        return all(files.sha256_file(checkpoint / name) == digest for name, digest in contents.items())
    except SpartaError:
        return False


def _identity_of(work: Path) -> str | None:
    """The identity of the job that `work` belongs to; None where nothing says so, then nothing in it can be trusted."""
    try:
        return files.read_json(work / IDENTITY, dict[str, str]).get("identity")
    except SpartaError:
        return None

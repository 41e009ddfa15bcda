"""The entrance to training: from the engine's kind to the training that goes with it."""

from collections.abc import Callable, Sequence

from sparta.engines.stopwatch import TRAIN, doing
from sparta.store import files
from sparta.training.adapter_folder import read_report
from sparta.training.job import Progress, SftJob, SftReport, TrainingJob, TrainingReport, silent
from sparta.training.loading import BaseInMemory


def train(
    jobs: Sequence[TrainingJob],
    engine_kind: str,
    at_once: int,
    progress: Callable[[TrainingJob], Progress],
    finished: Callable[[TrainingJob, TrainingReport], None],
    ranks: int = 1,
) -> None:
    """Does `jobs`, all of one base: `scripted` engines go with scripted training, all others with DPO, up to `at_once` of them at the same time.
    ranks: processes that share the base and the work, each with a GPU.

    finished: called with each job as soon as its `out` is there. A job that was killed between its last two steps, `out` there and its report
    not yet received, is not done again.
    """
    left = []
    for job in jobs:
        if job.out.is_dir():
            files.remove(job.work)
            finished(job, read_report(job.out, TrainingReport))
        else:
            left.append(job)
    if engine_kind == "scripted":
        from sparta.training.scripted import train_scripted

        with doing(TRAIN):
            for job in left:
                finished(job, train_scripted(job, progress(job)))
    elif left:
        from sparta.training.dpo import train_members

        train_members(left, at_once, progress, finished, ranks)


def train_expert(
    job: SftJob, engine_kind: str, progress: Progress = silent, base: BaseInMemory | None = None
) -> SftReport:
    """Makes an expert of a new adapter by supervised training on data, else as `train`. base: kept from one job to the next."""
    if job.out.is_dir():
        files.remove(job.work)
        return read_report(job.out, SftReport)
    if engine_kind == "scripted":
        from sparta.training.scripted import train_expert_scripted

        with doing(TRAIN):
            return train_expert_scripted(job, progress)
    from sparta.training.sft import train_sft

    return train_sft(job, progress, base)

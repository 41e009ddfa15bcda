"""The entrance to training: from the engine's kind to the way of training that goes with it."""

from sparta.store import files
from sparta.training.adapter_folder import read_report
from sparta.training.job import Progress, SftJob, SftReport, TrainingJob, TrainingReport, silent


def train(job: TrainingJob, engine_kind: str, progress: Progress = silent) -> TrainingReport:
    """Does `job`: `scripted` engines go with scripted training, all others with DPO.

    A job that was killed between its last two steps, `job.out` there and its report not yet received, is not done again.
    """
    if job.out.is_dir():
        files.remove(job.work)
        return read_report(job.out, TrainingReport)
    if engine_kind == "scripted":
        from sparta.training.scripted import train_scripted

        return train_scripted(job, progress)
    from sparta.training.dpo import train_dpo

    return train_dpo(job, progress)


def train_expert(job: SftJob, engine_kind: str, progress: Progress = silent) -> SftReport:
    """Makes an expert of a new adapter by supervised training on data, else as `train`."""
    if job.out.is_dir():
        files.remove(job.work)
        return read_report(job.out, SftReport)
    if engine_kind == "scripted":
        from sparta.training.scripted import train_expert_scripted

        return train_expert_scripted(job, progress)
    from sparta.training.sft import train_sft

    return train_sft(job, progress)

"""How every training job begins and ends, whatever it trains by: from the adapter it is given to the next one in its place."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from sparta.training.adapter_folder import (
    CONFIG,
    LOG,
    WEIGHTS,
    Report,
    StartingAdapter,
    encode_log,
    publish,
    read_starting_adapter,
    refuse_existing,
)
from sparta.training.checkpoints import close_work
from sparta.training.job import AnyJob


def begin(job: AnyJob) -> StartingAdapter:
    """The adapter that `job` starts from. Raises SpartaError where it cannot be continued, or where `job.out` is already there."""
    refuse_existing(job.model, job.out)
    return read_starting_adapter(job.model, job.adapter)


def end(
    job: AnyJob,
    adapter: StartingAdapter,
    weights: bytes | Path,
    log: Sequence[Mapping[str, object]],
    report: Report,
) -> Report:
    """Makes `job.out` of what the job has come to, and returns its report; the work folder, which it could be resumed from, goes last.

    adapter: what it started from. weights: a safetensors file or its content. log: the records of log.jsonl.
    """
    contents: dict[str, bytes | Path] = {CONFIG: adapter.config_bytes(), WEIGHTS: weights}
    publish(job.model, job.out, {**contents, LOG: encode_log(log)}, report)
    close_work(job.work)
    return report

"""Training without a model, for rehearsals with the scripted engine: a small adapter derived from what the job is given."""

import hashlib
import json
import struct
import time
from collections.abc import Sequence

from sparta.training.adapter_folder import CONFIG, WEIGHTS, StartingAdapter, encode_config
from sparta.training.job import (
    AnyJob,
    PreferenceExample,
    Progress,
    SftExample,
    SftJob,
    SftReport,
    TrainingJob,
    TrainingReport,
    silent,
    usable_pairs,
    usable_rows,
)
from sparta.training.runner import begin, end

TENSOR = "base_model.model.scripted.lora_A.weight"
VALUES = 8
_NOTE = "scripted: nothing was trained"


def train_scripted(job: TrainingJob, progress: Progress = silent) -> TrainingReport:
    """Does `job` without training anything; equal jobs give equal adapters, and another seed, pair or starting adapter another one.

    Counts (pairs, dropped, steps, tokens) are those that DPO would report; there are no losses. Raises SpartaError where the starting
    adapter is missing or `job.out` is already there.
    """
    started = time.monotonic()
    adapter = begin(job)
    examples = usable_pairs(job)
    dropped = len(job.examples) - len(examples)
    steps = _steps(job, examples, progress)
    weights = _weights(job, adapter, examples) if examples else adapter.weights
    tokens = job.epochs * sum(example.tokens for example in examples)
    report = TrainingReport(len(examples), dropped, steps, None, None, tokens, time.monotonic() - started)
    record = {"update": steps, "note": _NOTE, "pairs": len(examples), "dropped": dropped}
    return end(job, adapter, weights, [record], report)


def train_expert_scripted(job: SftJob, progress: Progress = silent) -> SftReport:
    """The same for an expert; without a usable row it raises SpartaError, as supervised training does."""
    started = time.monotonic()
    adapter = begin(job)
    rows = usable_rows(job)
    steps = _steps(job, rows, progress)
    report = SftReport(
        used=len(rows),
        dropped=len(job.examples) - len(rows),
        steps=steps,
        first_loss=None,
        mean_loss=None,
        last_loss=None,
        tokens=job.epochs * sum(row.length for row in rows),
        taught=job.epochs * sum(row.targets for row in rows),
        seconds=time.monotonic() - started,
    )
    record = {"update": steps, "note": _NOTE, "used": report.used, "dropped": report.dropped}
    return end(job, adapter, _weights(job, adapter, rows), [record], report)


def _steps(
    job: AnyJob, examples: Sequence[PreferenceExample] | Sequence[SftExample], progress: Progress
) -> int:
    """Weight updates that the training of these examples would have; progress is called for each."""
    steps = -(-len(examples) * job.epochs // (job.settings.batch_size * job.settings.accumulation))
    for update in range(1, steps + 1):
        progress(update, steps, None)
    return steps


def _weights(
    job: AnyJob, adapter: StartingAdapter, examples: Sequence[PreferenceExample] | Sequence[SftExample]
) -> bytes:
    digest = hashlib.sha256(adapter.weights.read_bytes())
    digest.update(repr((job.seed, [tuple(vars(example).values()) for example in examples])).encode())
    return _safetensors(digest.digest())


def _safetensors(digest: bytes) -> bytes:
    """A safetensors file (little-endian length of the header, JSON header, data) with one float32 tensor [VALUES] in [0, 1) made of `digest`."""
    values = [int.from_bytes(digest[4 * i : 4 * i + 4], "big") / 2**32 for i in range(VALUES)]
    data = struct.pack(f"<{VALUES}f", *values)
    entry = {"dtype": "F32", "shape": [VALUES], "data_offsets": [0, len(data)]}
    header = json.dumps({"__metadata__": {"format": "pt"}, TENSOR: entry}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data


def scripted_start(seed: int) -> dict[str, bytes]:
    """The files, by name, of the adapter that an expert begins with: equal for equal seeds."""
    weights = _safetensors(hashlib.sha256(str(seed).encode()).digest())
    return {CONFIG: encode_config({"peft_type": "LORA", "r": 1}), WEIGHTS: weights}

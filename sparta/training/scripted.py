"""Training without a model, for rehearsals with the scripted engine: a small adapter derived from what the job is given."""

import hashlib
import json
import struct
import time
from dataclasses import astuple

from sparta.training.adapter_folder import (
    CONFIG,
    LOG,
    WEIGHTS,
    encode_log,
    publish,
    read_starting_adapter,
    refuse_existing,
)
from sparta.training.checkpoints import close_work
from sparta.training.job import Progress, TrainingJob, TrainingReport, silent, usable

TENSOR = "base_model.model.scripted.lora_A.weight"
VALUES = 8


def train_scripted(job: TrainingJob, progress: Progress = silent) -> TrainingReport:
    """Does `job` without training anything; equal jobs give equal adapters, and another seed, pair or starting adapter another one.

    Counts (pairs, dropped, steps, tokens) are those that DPO would report; there are no losses. Raises SpartaError where the starting
    adapter is missing or `job.out` is already there.
    """
    started = time.monotonic()
    refuse_existing(job.model, job.out)
    adapter = read_starting_adapter(job.model, job.adapter)
    settings = job.settings
    examples = usable(job.examples, settings.max_length)
    dropped = len(job.examples) - len(examples)
    steps = -(-len(examples) * settings.epochs // (settings.batch_size * settings.accumulation))
    for update in range(1, steps + 1):
        progress(update, steps, None)
    digest = hashlib.sha256(adapter.weights.read_bytes())
    digest.update(repr((job.seed, [astuple(example) for example in examples])).encode())
    record = {
        "update": steps,
        "note": "scripted: nothing was trained",
        "pairs": len(examples),
        "dropped": dropped,
    }
    weights = _safetensors(digest.digest()) if examples else adapter.weights
    tokens = settings.epochs * sum(example.tokens for example in examples)
    report = TrainingReport(len(examples), dropped, steps, None, None, tokens, time.monotonic() - started)
    contents = {CONFIG: adapter.config_bytes(), WEIGHTS: weights, LOG: encode_log([record])}
    publish(job.model, job.out, contents, report)
    close_work(job.work)
    return report


def _safetensors(digest: bytes) -> bytes:
    """A safetensors file (little-endian length of the header, JSON header, data) with one float32 tensor [VALUES] in [0, 1) made of `digest`."""
    values = [int.from_bytes(digest[4 * i : 4 * i + 4], "big") / 2**32 for i in range(VALUES)]
    data = struct.pack(f"<{VALUES}f", *values)
    entry = {"dtype": "F32", "shape": [VALUES], "data_offsets": [0, len(data)]}
    header = json.dumps({"__metadata__": {"format": "pt"}, TENSOR: entry}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data

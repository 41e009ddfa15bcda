"""Adapter folders: what is read from the one a job starts from, and how the one it makes appears, whole or not at all."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from sparta.errors import SpartaError
from sparta.store import files
from sparta.training.job import SftReport, TrainingReport

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
LOG = "log.jsonl"
REPORT = "report.json"

_DATA_DRIVEN = ("pissa", "olora", "loftq", "eva", "corda")
_TRAINABLE = (".lora_A.", ".lora_B.", ".lora_magnitude_vector")

Report = TypeVar("Report", TrainingReport, SftReport)


@dataclass(frozen=True)
class StartingAdapter:
    """The adapter that a job continues. config: the content of adapter_config.json."""

    folder: Path
    config: Mapping[str, Any]

    @property
    def weights(self) -> Path:
        return self.folder / WEIGHTS

    def config_bytes(self) -> bytes:
        """adapter_config.json of the next adapter: the same configuration, keys in order, nothing of this machine added.

        PEFT's own writer would put in the place the base was loaded from.
        """
        return encode_config(self.config)


def encode_config(config: Mapping[str, Any]) -> bytes:
    """adapter_config.json of `config`: equal for equal content."""
    return json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def read_starting_adapter(model: str, folder: Path) -> StartingAdapter:
    """The adapter in `folder`. Raises SpartaError where there is none, or one that cannot be continued as it is."""
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise SpartaError(
                f"The adapter that {model} starts from is incomplete: {folder / name} is missing; name a PEFT folder with "
                f"{CONFIG} and {WEIGHTS} in the recipe, or restore it from a copy."
            )
    config = files.read_json(folder / CONFIG, dict)
    kind = config.get("peft_type")
    if kind != "LORA":
        raise SpartaError(
            f"The adapter of {model} in {folder} is of type {kind}: only LORA adapters can be trained on; choose another adapter."
        )
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_DATA_DRIVEN):
        raise SpartaError(
            f"The adapter of {model} in {folder} was initialised with {start!r}, which changes the base when it is loaded: convert it "
            "to a plain LoRA with PEFT (save_pretrained with path_initial_model_for_weight_conversion) and name that one."
        )
    return StartingAdapter(folder, config)


def check_trainable(model: str, adapter: Path) -> None:
    """Raises SpartaError where the adapter of `model` in the folder `adapter` cannot be trained on, as far as its files tell.

    All its tensors must be LoRA on linear layers. What else PEFT may put beside them (whole modules, biases, embeddings, single tokens) is
    partly shared with the reference of DPO and with other adapters on the base, which would move with it.
    """
    from safetensors import SafetensorError, safe_open

    weights = read_starting_adapter(model, adapter).weights
    try:
        with files.os_errors_named(weights), safe_open(weights, framework="numpy") as file:
            foreign = [name for name in file.keys() if not any(part in name for part in _TRAINABLE)]  # noqa: SIM118
    except SafetensorError as error:
        raise SpartaError(
            f"{weights} is not a whole safetensors file ({error}): copy or save the adapter again."
        ) from error
    if foreign:
        raise SpartaError(
            f"The adapter of {model} in {adapter} holds {len(foreign)} tensors that are not LoRA on a linear layer, {min(foreign)} among "
            "them: train it without modules_to_save, bias, trainable tokens and adapted embeddings, or choose another adapter."
        )


def refuse_existing(model: str, out: Path) -> None:
    """Raises SpartaError where the adapter to be made is already there; it is left alone."""
    if os.path.lexists(out):
        raise SpartaError(
            f"The adapter of {model} is already there ({out}): it was not trained again; move it away to do so."
        )


def encode_log(records: Sequence[Mapping[str, object]]) -> bytes:
    """log.jsonl of these records."""
    return b"".join(msgspec.json.encode(record) + b"\n" for record in records)


def read_report(out: Path, kind: type[Report]) -> Report:
    """What the job that made `out` reported."""
    remedy = f"remove the folder {out} and run the same command again, which trains it anew"
    return files.read_json(out / REPORT, kind, remedy)


def publish(
    model: str, out: Path, contents: Mapping[str, bytes | Path], report: TrainingReport | SftReport
) -> None:
    """Makes the folder `out` with these files (bytes, or a file to copy) and the report, durable, in one rename.

    Raises SpartaError, with nothing left behind, where it cannot or where `out` has appeared in the meantime.
    """

    def write(folder: Path) -> None:
        for name, content in {**contents, REPORT: files.encode_json(report)}.items():
            if isinstance(content, Path):
                shutil.copyfile(content, folder / name)
            else:
                (folder / name).write_bytes(content)

    if not files.put_tree(out, write):
        refuse_existing(model, out)

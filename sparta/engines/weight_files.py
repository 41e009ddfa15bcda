"""Names, types and shapes of weights, read from safetensors headers and a base's index, without torch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sparta.errors import SpartaError
from sparta.store.disk import explain

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

TORCH_TYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
"""From the names of safetensors to those of torch, of the types that are converted when a base is loaded."""
BYTES_OF_TYPE = {"float16": 2, "bfloat16": 2, "float32": 4}
"""Of the types that a base is trained in."""

_MAX_HEADER = 100 * 2**20


class TensorInfo(NamedTuple):
    """dtype: as safetensors spells it, as BF16."""

    dtype: str
    shape: tuple[int, ...]


def tensors_in(path: Path) -> dict[str, TensorInfo]:
    """The tensors of a safetensors file by name, from its header. Raises SpartaError if the file is damaged or truncated."""
    torn = SpartaError(f"{path} is not a whole safetensors file: copy it again, or save it again")
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _MAX_HEADER):
            raise torn
        try:
            header = json.loads(file.read(length))
            entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
            found = {
                name: TensorInfo(str(entry["dtype"]), tuple(int(side) for side in entry["shape"]))
                for name, entry in entries.items()
            }
            end = max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError):
            raise torn from None
    if size != 8 + length + end:
        raise torn
    if not found:
        raise SpartaError(f"{path} holds no tensors: save it again")
    return found


def read_object(path: Path, owner: str) -> dict[str, Any]:
    """The JSON object in `path`. Raises SpartaError if it is missing or invalid. owner: whose file it is, such as "base B"."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SpartaError(
            f"{owner} has no {path.name}: the folder is incomplete, or the recipe names the wrong one"
        ) from None
    except OSError as error:
        raise explain(error, path) from error
    except (ValueError, RecursionError) as error:
        raise SpartaError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise SpartaError(f"{path} must hold a JSON object: copy it again")
    return content


def weight_names(base: Path) -> list[str]:
    """Names of the weights of the model in the folder `base`, from its one file or from its index. Raises SpartaError if there is neither."""
    if (base / WHOLE).is_file():
        return list(tensors_in(base / WHOLE))
    return list(_weight_map(base))


def weight_files(base: Path) -> list[Path]:
    """The files with the weights of `base`. Raises SpartaError if one is missing, or if they are not in safetensors."""
    if (base / WHOLE).is_file():
        return [base / WHOLE]
    names = sorted(set(_weight_map(base).values()))
    missing = [name for name in names if not (base / name).is_file()]
    if missing or not names:
        raise SpartaError(
            f"base {base} is incomplete: it lacks {missing[0] if missing else 'the weights that'} "
            f"{INDEX} names; copy the model again"
        )
    return [base / name for name in names]


def _weight_map(base: Path) -> Mapping[str, str]:
    if not (base / INDEX).is_file():
        raise SpartaError(
            f"base {base} has no {WHOLE}: other weight formats are not supported, convert the model with save_pretrained"
        )
    parts = read_object(base / INDEX, f"base {base}").get("weight_map")
    return {str(name): str(file) for name, file in parts.items()} if isinstance(parts, dict) else {}

"""A cache on disk of an endpoint's answers: nothing is paid for twice, and total spending is known.

The folder is the source of truth for both, shared by all processes of a run. Each process appends to its own file there
and reads the others' files every few seconds.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from sparta.errors import SpartaError
from sparta.recipes import engine as recipe_engine
from sparta.store.files import decoder, os_errors_named
from sparta.store.shards import ShardWriter, shard_files

RESCAN_SECONDS = 3.0
"""How often, at most, other processes' calls are read."""


class Call(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One call that was charged.

    key: sha256 of the request. model: the name at the endpoint. member, version: the model of the pool, and its weights.
    new_tokens: as charged by the endpoint, including reasoning that it does not show.
    spoiled: the answer was unusable but charged: it counts as spending and is never reused.
    """

    key: str
    model: str
    member: str
    version: str
    text: str
    prompt_tokens: int
    new_tokens: int
    finish_reason: Literal["stop", "length"]
    label_probs: tuple[float, ...] = ()
    seconds: float = 0.0
    spoiled: bool = False


@dataclass(frozen=True)
class Spent:
    """What calls cost together, including spoiled ones. cost: in the currency of the recipe; the recipe's present prices apply to old calls too."""

    calls: int = 0
    prompt_tokens: int = 0
    new_tokens: int = 0
    cost: float = 0.0


def spent_in(folder: Path, settings: recipe_engine.Api) -> Spent:
    """What all calls in `folder` cost together; zero if the folder does not exist."""
    return Calls(folder, settings).spent()


class Calls:
    """The calls of a run. folder: where they are cached; None caches nothing and counts only this process's spending. key: where the recipe has
    the engine's settings.

    Raises SpartaError, naming file and line, for a complete line that is not a valid call. An unfinished last line is ignored.
    """

    def __init__(self, folder: Path | None, settings: recipe_engine.Api, key: str = "engine") -> None:
        self._folder = folder
        self._settings = settings
        self._key = key
        self._writer: ShardWriter | None = None
        self._read_to: dict[Path, tuple[int, int]] = {}
        self._places: dict[bytes, tuple[Path, int]] = {}
        self._versions: dict[tuple[str, str], str] = {}
        self._calls = self._prompt_tokens = self._new_tokens = 0
        self._refreshed = -RESCAN_SECONDS

    def refresh(self) -> None:
        """Read new calls of all processes, at most every RESCAN_SECONDS. In a long run, the first time can take long."""
        if self._folder is None or time.monotonic() - self._refreshed < RESCAN_SECONDS:
            return
        for path in shard_files(self._folder):
            self._read(path)
        self._refreshed = time.monotonic()

    def find(self, key: str) -> Call | None:
        """The cached answer to an equal request of any process; None if there is none."""
        self.refresh()
        place = self._places.get(bytes.fromhex(key))
        if place is None:
            return None
        path, offset = place
        with os_errors_named(path), path.open("rb") as file:
            file.seek(offset)
            return decoder(Call).decode(file.readline())

    def add(self, call: Call) -> None:
        """Add `call` to the cache; once this returns, it survives the death of the process."""
        if self._folder is None:
            self._count(call)
            return
        if self._writer is None:
            # Processes on several hosts write at once, so file names must not collide.
            self._writer = ShardWriter(
                self._folder, attempt=0, shard=os.getpid(), start=int.from_bytes(os.urandom(6)) + 1
            )
        self._writer.write(call)
        self._read(self._writer.path)

    def spent(self) -> Spent:
        """What all calls cost together, as of at most RESCAN_SECONDS ago."""
        self.refresh()
        price = self._settings.input_price * self._prompt_tokens
        price += self._settings.output_price * self._new_tokens
        return Spent(self._calls, self._prompt_tokens, self._new_tokens, price / 1e6)

    def check_budget(self) -> None:
        """Raises SpartaError if the budget is spent."""
        ceiling = self._settings.max_cost
        if ceiling is not None and (spent := self.spent()).cost >= ceiling:
            raise SpartaError(
                f"{spent.calls} calls have cost {spent.cost:.4g}, and {self._key}.api.max_cost allows {ceiling:g}: raise it and "
                "run the same command again, which continues from here"
            )

    def version_of(self, member: str, model: str) -> str | None:
        """The version of `member` in the first call to the endpoint's model `model`; None if there was no such call."""
        self.refresh()
        return self._versions.get((member, model))

    def flush(self) -> None:
        """Flush everything to disk."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Flush everything to disk and close the file. A second call does nothing."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _read(self, path: Path) -> None:
        """Read the complete lines that were added since the last time."""
        offset, number = self._read_to.get(path, (0, 0))
        with os_errors_named(path), path.open("rb") as file:
            file.seek(offset)
            for line in file:
                # On a network file system the end of a file can appear before its middle, which then reads as zeros.
                if not line.endswith(b"\n") or b"\0" in line:
                    break
                number += 1
                try:
                    call = decoder(Call).decode(line)
                    key = bytes.fromhex(call.key)
                except ValueError as error:
                    raise SpartaError(
                        f"{path}, line {number} is not a valid call ({error}): delete that line and run the same command again, "
                        "which asks the endpoint again."
                    ) from error
                if not call.spoiled:
                    self._places.setdefault(key, (path, offset))
                self._count(call)
                offset += len(line)
        self._read_to[path] = offset, number

    def _count(self, call: Call) -> None:
        self._versions.setdefault((call.member, call.model), call.version)
        self._calls += 1
        self._prompt_tokens += call.prompt_tokens
        self._new_tokens += call.new_tokens

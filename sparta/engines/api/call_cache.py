"""Answers that an endpoint gave, kept on disk: nothing is paid for twice, and what was paid is known.

The folder is the truth about both, for all processes of a run together. Every process appends to a file of its own there
and reads the others' every few seconds.
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
"""How old the knowledge of other processes' calls may be."""


class Call(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One call that was answered.

    key: sha256 of what was asked. model: the name at the endpoint. member, version: the model of the pool, and its weights.
    new_tokens: as the endpoint charges them, those of a reasoning that it does not show included.
    spoiled: what came was no answer, and was charged all the same: it counts as spent and answers nothing.
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
    """What calls came to, spoiled ones included. cost: in the currency of the recipe's prices, which are those of today for old calls too."""

    calls: int = 0
    prompt_tokens: int = 0
    new_tokens: int = 0
    cost: float = 0.0


def spent_in(folder: Path, settings: recipe_engine.Api) -> Spent:
    """What all calls kept in `folder` came to; nothing where it does not exist."""
    return Calls(folder, settings).spent()


class Calls:
    """The calls of a run. folder: where they are kept; None keeps none, and knows this process's spending alone. key: where the recipe has the
    engine's settings.

    Raises SpartaError, naming file and line, where a whole line is no call. A last line without its newline is none yet.
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
        self._looked = -RESCAN_SECONDS

    def look(self) -> None:
        """Read what has come since the last look, if that was RESCAN_SECONDS ago; the first time in a long run, that is much."""
        if self._folder is None or time.monotonic() - self._looked < RESCAN_SECONDS:
            return
        for path in shard_files(self._folder):
            self._read(path)
        self._looked = time.monotonic()

    def find(self, key: str) -> Call | None:
        """The answer to an equal call, whichever process has made it."""
        self.look()
        place = self._places.get(bytes.fromhex(key))
        if place is None:
            return None
        path, offset = place
        with os_errors_named(path), path.open("rb") as file:
            file.seek(offset)
            return decoder(Call).decode(file.readline())

    def add(self, call: Call) -> None:
        """Keep `call`; when this returns, the death of the process loses it no more."""
        if self._folder is None:
            self._count(call)
            return
        if self._writer is None:
            # Many processes on many hosts write at once: none may come upon another's name.
            self._writer = ShardWriter(
                self._folder, attempt=0, shard=os.getpid(), start=int.from_bytes(os.urandom(6)) + 1
            )
        self._writer.write(call)
        self._read(self._writer.path)

    def spent(self) -> Spent:
        """What all calls came to, at most RESCAN_SECONDS ago."""
        self.look()
        price = self._settings.input_price * self._prompt_tokens
        price += self._settings.output_price * self._new_tokens
        return Spent(self._calls, self._prompt_tokens, self._new_tokens, price / 1e6)

    def check_budget(self) -> None:
        """Raises SpartaError where nothing more may be spent."""
        ceiling = self._settings.max_cost
        if ceiling is not None and (spent := self.spent()).cost >= ceiling:
            raise SpartaError(
                f"{spent.calls} calls have cost {spent.cost:.4g}, and {self._key}.api.max_cost allows {ceiling:g}: raise it and "
                "run the same command again, which goes on where this stopped"
            )

    def version_of(self, member: str, model: str) -> str | None:
        """The version of `member` that was first asked under the endpoint's name `model`; None where it never was."""
        self.look()
        return self._versions.get((member, model))

    def flush(self) -> None:
        """Bring everything to the disk."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Bring everything to the disk and let go of the file. A second call does nothing."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _read(self, path: Path) -> None:
        """Take note of the whole lines that have come since the last time."""
        offset, number = self._read_to.get(path, (0, 0))
        with os_errors_named(path), path.open("rb") as file:
            file.seek(offset)
            for line in file:
                # Where a network disk shows the end of a file before its middle, the middle reads as zeros for a while.
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

"""Where vLLM keeps what it compiles for a GPU, and who compiles it: one task of a cluster, while the others wait.

vLLM's own key of a compiled model names neither the card nor CUDA, so tasks on different cards would load each other's kernels from one folder.
Here each combination of card, versions, base and settings has a folder of its own, which vLLM gets as VLLM_CACHE_ROOT. In it, `turn/` holds the
lease of the task that compiles, and the empty file `compiled` or `failed` once one has finished. A start that failed for another reason, such as a
GPU in use, leaves neither: the next task compiles.
"""

import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparta.engines.fallbacks import fall_back
from sparta.errors import SpartaError, note
from sparta.store import files
from sparta.store.lease import Lease, lease_holder

WAIT_SECONDS = 600.0
"""How long a task waits for another one that compiles. A cold start took 154 s for a 7B base on an H100."""
_LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class CompileCache:
    """The folder of one start of vLLM. shared: whether other tasks and later starts use it, too."""

    folder: Path
    shared: bool

    @property
    def variables(self) -> dict[str, str | None]:
        """Environment variables for vLLM. The kernels of adapters are Triton's, which has a cache of its own."""
        triton = os.environ.get("TRITON_CACHE_DIR") if self.shared else None
        return {
            "VLLM_CACHE_ROOT": str(self.folder),
            "TRITON_CACHE_DIR": triton or str(self.folder / "triton"),
        }


def compile_cache(place: Path | None, spare: Path, key: str) -> CompileCache:
    """The cache for `key`, in VLLM_CACHE_ROOT if the environment names it, else in `place`, else (None) in vLLM's own folder in the home directory.

    `spare`, which is empty and not shared, with a note, if that cannot be written.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vllm"
    root = Path(os.environ.get("VLLM_CACHE_ROOT") or place or home).expanduser()
    folder = root / key
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(4096))
            probe.flush()
    except OSError as error:
        fall_back(
            f"vLLM cannot keep what it compiles in {root} ({error.strerror or error}), so every start compiles it again: set VLLM_CACHE_ROOT to a "
            "folder that all nodes can write, for example in the profile's setup"
        )
        return CompileCache(spare, False)
    return CompileCache(folder, True)


def cache_key(base: str, arguments: Mapping[str, Any]) -> str:
    """A folder name for whatever decides what vLLM compiles: the card's name, for people, and a digest. arguments: of EngineArgs.

    The digest covers the base's configuration, not only its path, because a folder may get another base.
    """
    import torch
    import vllm
    from vllm.platforms import current_platform

    card = _processor() if current_platform.is_cpu() else current_platform.get_device_name()
    config = files.read_bytes(Path(base, "config.json")).decode(errors="replace")
    decides = [card, vllm.__version__, torch.__version__, base, config, arguments]
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()
    return f"{re.sub(r'[^a-z0-9]+', '-', card.lower()).strip('-')[:40]}-{digest[:16]}"


@contextmanager
def one_compiles(cache: CompileCache, could_not_compile: Callable[[Exception], bool]) -> Iterator[float]:
    """Start vLLM in this context: if `cache` is empty, one task is in it at a time, and those after it find the cache filled.

    Yields the seconds that this task waited. A task that dies, is preempted or fails hands over to another one; after one that could not compile
    nobody waits. could_not_compile: whether that is why an error was raised. Disk errors only end the waiting.
    """
    began = time.monotonic()
    turn = cache.folder / "turn"
    lease = _turn(turn) if cache.shared else None
    outcome = None
    try:
        yield time.monotonic() - began
        outcome = "compiled"
    except Exception as error:
        outcome = "failed" if could_not_compile(error) else None
        raise
    finally:
        # The marks are hints: without one, a later task compiles or waits in vain.
        with suppress(OSError):
            if outcome and not (turn / "compiled").exists():
                (turn / outcome).touch()
            if outcome == "compiled":
                (turn / "failed").unlink(missing_ok=True)
        if lease:
            with suppress(OSError):
                lease.release()


def _turn(folder: Path) -> Lease | None:
    """The lease to compile; None if that is done, has failed, or takes another task too long."""
    deadline = time.monotonic() + WAIT_SECONDS
    try:
        while not _settled(folder):
            lease = Lease.take(folder)
            if lease and _settled(folder):  # Another machine's mark may become visible only now.
                lease.release()
                return None
            if lease:
                return lease
            if holder := lease_holder(folder):
                note(f"waiting for {holder.claim}, which compiles what vLLM needs for this base")
            if time.monotonic() > deadline:
                note(f"nothing was compiled within {WAIT_SECONDS:.0f} s, so this task compiles as well")
                return None
            time.sleep(_LOOK_SECONDS)
    except (OSError, SpartaError) as error:
        note(f"this task does not wait for others that may compile the same for vLLM: {error}")
    return None


def _settled(folder: Path) -> bool:
    return any((folder / mark).exists() for mark in ("compiled", "failed"))


def _processor() -> str:
    """The processor's name; code compiled for one may not run on another."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return "cpu"

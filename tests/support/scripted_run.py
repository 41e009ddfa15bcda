"""A run without models: the scripted engine on a small pool, for tests of files and faults, where determinism is the point."""

import atexit
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import save_file

from sparta.cluster.driver import Driver
from sparta.cluster.inline import Inline
from sparta.methods.registry import phases_of
from sparta.phases.base import Phase, Rows
from sparta.recipes.load import load
from sparta.recipes.schema import Recipe
from sparta.store.layout import StateDir
from sparta.store.run import Run
from support.command_server import CommandServer
from support.openings import begin_or_continue

ROOT = Path(__file__).parents[2]

DEADLINE = 240.0
"""Time-out in seconds for things that take a few seconds on an idle machine; only a failing test waits this long."""

IN_FORKS = (
    "launch",
    "study",
    "init_pool",
    "status",
    "verify",
    "evaluate",
    "export",
    "sample",
    "export_pairs",
    "recipe",
    "prepare_data",
)
"""Commands that `typed` runs in forks."""

Launched = Callable[..., "subprocess.Popen[str]"]
"""Starts a command with these arguments; keyword arguments go into its environment. See `launches`."""


def write_adapter(folder: Path, seed: int) -> Path:
    """An adapter folder that the scripted trainer continues."""
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 1}))
    save_file({"weight": np.full(4, seed, dtype=np.float32)}, folder / "adapter_model.safetensors")
    return folder


def write_recipe(
    folder: Path, *, models: int = 4, combats: int = 12, prompts: int = 30, **changes: Any
) -> Path:
    """A recipe for the scripted engine, with its adapters and instructions, below `folder`."""
    names = [f"model{index}" for index in range(models)]
    for index, name in enumerate(names):
        if not (folder / "adapters" / name).exists():
            write_adapter(folder / "adapters" / name, index)
    rows = (json.dumps({"id": f"q{index}", "prompt": f"question {index}"}) for index in range(prompts))
    (folder / "prompts.jsonl").write_text("\n".join(rows) + "\n")
    tree: dict[str, object] = {
        "name": "rehearsal",
        "combats": combats,
        "iterations": 3,
        "pool": {
            "base": "none",
            "models": [{"name": name, "adapter": f"./adapters/{name}"} for name in names],
        },
        "data": {"train": "prompts.jsonl"},
        "engine": {"kind": "scripted"},
        **changes,
        # Explicit, so that a test does the same on machines with SLURM or a GPU.
        "cluster": {"kind": "inline", **(changes.get("cluster") or {})},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def rehearsal(folder: Path, **options: object) -> Recipe:
    """The recipe of `write_recipe`, loaded."""
    return load(write_recipe(folder, **options))  # type: ignore[arg-type]


def begin(folder: Path, **options: object) -> Run:
    """A new run of `rehearsal` in folder/state."""
    return begin_or_continue(StateDir(folder / "state"), rehearsal(folder, **options))


class Silent:
    """A driver's view that records messages."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def phase_begins(self, t: int, phase: Phase, total: int, done: int) -> None: ...

    def advanced(self, items: float) -> None: ...

    def phase_ends(self) -> None: ...

    def say(self, text: str) -> None:
        self.said.append(text)


def advance(run: Run, t: int, upto: str = "commit") -> None:
    """Run iteration t inline, up to and including the phase `upto`."""
    driver = Driver(run, Inline(run), Silent(), lambda: None)
    for phase in phases_of(run.recipe, t):
        driver.complete(phase, t)
        if phase.name == upto:
            return


def rows_on_disk(run: Run, phase: Rows, t: int) -> list[str]:
    """Keys of all rows of a phase, one entry for each time the work was done."""
    from sparta.store.files import read_rows
    from sparta.store.shards import shard_files

    return [row.key for path in shard_files(phase.folder(run, t)) for row in read_rows(path, phase.rows)]


def command(name: str, *arguments: object) -> list[str]:
    """jobs/NAME.py with `arguments`, as a person types it."""
    return [sys.executable, str(ROOT / "jobs" / f"{name}.py"), *map(str, arguments)]


def typed(
    name: str, *arguments: object, cwd: Path = ROOT, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end: in a fork of the command server, or, if variables differ that are read by imports, as a process that starts anew."""
    wanted = {**quiet(), **environment}
    if name in IN_FORKS:
        known = _server().environment
        changed = {key: wanted.get(key) for key in {*known, *wanted} if known.get(key) != wanted.get(key)}
        if changed.keys() <= READ_WHEN_USED:
            script, *rest = command(name, *arguments)[1:]
            return _server().run(Path(script), rest, cwd, DEADLINE, changed)
    return subprocess.run(
        command(name, *arguments), capture_output=True, text=True, cwd=cwd, timeout=DEADLINE, env=wanted
    )


@cache
def _server() -> CommandServer:
    """The command server of this test process, with the environment that it has now."""
    server = CommandServer(ROOT, quiet())
    atexit.register(server.close)
    return server


@contextmanager
def launches(name: str = "launch") -> Iterator[Launched]:
    """Starts jobs/NAME.py with arguments, as the leader of a process group; what still runs at the end of the block is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object, **environment: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            command(name, *arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**quiet(), **environment},
            start_new_session=True,
        )
        started.append(process)
        return process

    try:
        yield start
    finally:
        for process in started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


LEFT_BY_LIBRARIES = (
    "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "PYTORCH_NVML_BASED_CUDA_CHECK", "TILELANG_CLEANUP_TEMP_FILES", "TORCHINDUCTOR_CACHE_DIR", "TORCHINDUCTOR_COMPILE_THREADS",
    "TRITON_CACHE_AUTOTUNING", "VLLM_LOGGING_LEVEL",
)  # fmt: skip
"""Variables that torch, peft, vLLM and scikit-learn set where they are imported: an earlier test of this process may have."""


READ_WHEN_USED = {"HF_TOKEN", "LANG", "NO_COLOR", "OPENAI_API_KEY", "PATH", "TERM"}
"""Variables that no import of a command reads: a fork may have its own."""


def quiet() -> dict[str, str]:
    """The environment without variables that would make a command's output depend on where the tests run, or on which tests ran before."""
    left_out = ("CUDA_VISIBLE_DEVICES", "COLUMNS", "PYTEST_CURRENT_TEST", *LEFT_BY_LIBRARIES)
    return {key: value for key, value in os.environ.items() if key not in left_out}


def sentence(done: "subprocess.CompletedProcess[str]") -> str:
    """The error that a command ended with: status 1 and one message for a person, no traceback."""
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("error: ") == 1, done.stderr
    return done.stderr.removeprefix("error: ").strip()


def committed(state: Path) -> dict[str, bytes]:
    """The contents of all files of a state, without logs, measurements and the run's id."""
    skipped = ("jobs", "superseded")
    return {
        str(path.relative_to(state)): path.read_bytes()
        for path in sorted(state.rglob("*"))
        if path.is_file()
        and path.relative_to(state).parts[0] not in skipped
        and path.name not in ("stats.json", "log.jsonl")
    }


def manifests(state: Path) -> dict[str, bytes]:
    """The manifest of every committed iteration, by its folder's name."""
    return {path.parent.name: path.read_bytes() for path in sorted(state.glob("iter_*/MANIFEST.json"))}


def wait_until(happened: Callable[[], object], seconds: float = DEADLINE) -> None:
    """Poll until the condition holds; fail the test after a time-out.

    A check may start a process, and the awaited work needs the cores too, so checks use at most a fifth of the time.
    """
    give_up = time.monotonic() + seconds
    began = time.monotonic()
    while not happened():
        looked = time.monotonic()
        assert looked < give_up, "it did not happen in time"
        time.sleep(min(max(0.01, 4 * (looked - began)), 0.5))
        began = time.monotonic()


def path_without_slurm(folder: Path) -> str:
    """A PATH without SLURM's commands, made below `folder`: SLURM may be installed without a controller that answers."""
    found = folder / "without-slurm"
    found.mkdir(exist_ok=True)
    for place in os.environ["PATH"].split(os.pathsep):
        for program in Path(place).glob("*") if place else ():
            link = found / program.name
            if not link.exists() and program.name not in ("sbatch", "scancel", "scontrol", "sinfo", "squeue"):
                with suppress(OSError):
                    link.symlink_to(program)
    return str(found)

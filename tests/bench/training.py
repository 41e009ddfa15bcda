"""DPO measured: python tests/bench/training.py

The product against plain TRL on the same pairs, and members together against one by one, all from the adapters of one base. Prints a markdown
table with the versions. --pool toy (the embedded pool), small (random weights, 256 wide), or 7b (Qwen2.5-7B's shape, made on the GPU); `--pool 7b
--shape tiny` tries the same on a CPU. Seconds are those of loading and training; a pair's milliseconds, tokens/s and the share are of training alone. FLOP of a pair: 6 for each token and parameter of the layers (policy and reference forward, policy backward to its
inputs); the share is of the rate of a large matrix product on the same device.
"""

import argparse
import gc
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]
from pools import random_pool  # noqa: E402

from sparta.engines.factory import loads_so_far  # noqa: E402
from sparta.pool.memory_account import GIB, describe, of_dpo, shapes_of  # noqa: E402
from sparta.recipes.schema import Dpo  # noqa: E402
from sparta.toy import BASE, EXPERTS  # noqa: E402
from sparta.training.dpo import train_members  # noqa: E402
from sparta.training.dpo_batches import filled  # noqa: E402
from sparta.training.job import PreferenceExample, TrainingJob, silent  # noqa: E402


@dataclass(frozen=True)
class Shape:
    """What is trained on. prompt, completion: tokens, on average; highest: token id."""

    pairs: int
    prompt: int
    completion: int
    highest: int
    settings: dict[str, Any]


SHAPES = {
    "toy": Shape(64, 10, 6, 256, {"learning_rate": 1e-3, "batch_size": 8}),
    "small": Shape(16, 40, 24, 256, {"learning_rate": 1e-4, "batch_size": 1}),
    "7b": Shape(32, 330, 113, 150_000, {"learning_rate": 1e-6, "batch_size": 1}),
}
TINY = Shape(4, 20, 10, 256, {"learning_rate": 1e-6, "batch_size": 1})
"""In place of that of 7b, with weights of pools.SHAPES["tiny"]."""


@dataclass(frozen=True)
class Line:
    """One way to train, measured. wall, processor: seconds with loading the base; trained: by the clock, without. peak, estimate: GiB of GPU memory;
    no peak on a CPU.
    """

    what: str
    members: int
    wall: float
    processor: float
    trained: float
    peak: float | None
    estimate: float | None


class Bench:
    """together: how many members at the same time, where they are trained together. pairs: other than the shape's number."""

    def __init__(
        self,
        pool: str,
        folder: Path,
        members: int,
        device: str,
        tiny: bool = False,
        together: int | None = None,
        pairs: int | None = None,
    ) -> None:
        self.shape, self.folder, self.device = TINY if tiny else SHAPES[pool], folder, device
        pool = "tiny" if tiny else pool
        if pool == "toy":
            base, adapters = BASE, [BASE.parent / "adapters" / name for name in EXPERTS]
        else:
            made = random_pool(folder / f"pool-{pool}", pool).parent
            base, adapters = made / "base", sorted((made / "adapters").iterdir())
        self.base, self.adapters = base, adapters[:members]
        self.at_once = min(together or members, len(self.adapters))
        rng = Random(0)

        def ids(count: int) -> tuple[int, ...]:
            drawn = max(1, round(rng.gauss(count, count / 4)))
            return tuple(rng.randrange(self.shape.highest) for _ in range(drawn))

        self.examples = tuple(
            PreferenceExample(ids(self.shape.prompt), ids(self.shape.completion), ids(self.shape.completion))
            for _ in range(pairs or self.shape.pairs)
        )
        self.tokens = sum(example.tokens for example in self.examples)

    def jobs(self) -> list[TrainingJob]:
        """Of all members, anew."""
        place = self.folder / "made"
        shutil.rmtree(place, ignore_errors=True)
        return [
            TrainingJob(
                model=f"m{number}",
                base=str(self.base),
                adapter=adapter,
                examples=self.examples,
                out=place / f"m{number}",
                work=place / f"work{number}",
                settings=Dpo(**self.shape.settings),
                dtype="auto",
                device=self.device,
                seed=number,
            )
            for number, adapter in enumerate(self.adapters)
        ]

    def plain(self) -> float:
        """Seconds of training, without loading."""
        from support.plain_trl import plain_trl

        return sum(
            plain_trl(job, self.folder / "made" / f"trl{number}").seconds
            for number, job in enumerate(self.jobs())
        )

    def one_task_each(self) -> None:
        for job in self.jobs():
            train_members([job], 1, lambda _: silent, lambda *_: None)

    def one_by_one(self) -> None:
        train_members(self.jobs(), 1, lambda _: silent, lambda *_: None)

    def together(self) -> None:
        train_members(self.jobs(), self.at_once, lambda _: silent, lambda *_: None)

    def trained(self) -> list[dict[str, Any]]:
        """Weights of the adapters that the last way but plain TRL has made, by name, one dictionary a member."""
        from safetensors.torch import load_file

        made = (self.folder / "made" / f"m{number}" for number in range(len(self.adapters)))
        return [load_file(folder / "adapter_model.safetensors") for folder in made]

    def apart(self, left: Sequence[dict[str, Any]], right: Sequence[dict[str, Any]]) -> float:
        """The largest difference between two results of `trained`, as a share of the largest change by training."""
        from safetensors.torch import load_file

        before = [load_file(adapter / "adapter_model.safetensors") for adapter in self.adapters]
        apart = change = 0.0
        for start, one, other in zip(before, left, right, strict=True):
            for name, weight in one.items():
                apart = max(apart, float((weight.float() - other[name].float()).abs().max()))
                change = max(change, float((weight.float() - start[name].float()).abs().max()))
        return apart / change

    @property
    def flop(self) -> float:
        """Of all members, see the top of this file."""
        base = describe(str(self.base))
        body = base.parameters - 2 * base.vocabulary * base.hidden
        return 6.0 * body * self.tokens * len(self.adapters)

    def lines(self, repeats: int) -> Iterator[Line]:
        """In turn, so that what else the machine does falls on all alike; medians."""
        ways: dict[str, tuple[Callable[[], float | None], int]] = {
            "plain TRL": (self.plain, 0),
            "Sparta, one task each": (self.one_task_each, 1),
            "Sparta, one by one in a task": (self.one_by_one, 1),
            f"Sparta, {self.at_once} together": (self.together, self.at_once),
        }
        seen: dict[str, list[tuple[float, float, float, float | None]]] = {name: [] for name in ways}
        for _ in range(repeats + 1):
            for name, (way, _at_once) in ways.items():
                seen[name].append(self.measured(way))
        for name, (_way, at_once) in ways.items():
            # The first of each pays for imports and caches.
            wall, processor, trained, peak = zip(*seen[name][1:], strict=True)
            estimate = self.estimate(at_once) if at_once else None
            yield Line(
                name, len(self.adapters), median(wall), median(processor), median(trained), peak[-1], estimate
            )

    def measured(self, way: Callable[[], float | None]) -> tuple[float, float, float, float | None]:
        import torch

        on_gpu = self.device == "cuda"
        if on_gpu:
            # What the way before has left does not count.
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        loading = loads_so_far().seconds
        began, used = time.perf_counter(), time.process_time()
        trained = way()
        wait(self.device)
        wall = time.perf_counter() - began
        if trained is None:
            trained = wall - (loads_so_far().seconds - loading)
        peak = torch.cuda.max_memory_reserved() / GIB if on_gpu else None
        return wall, time.process_time() - used, trained, peak

    def estimate(self, members: int) -> float:
        settings = Dpo(**self.shape.settings)
        return of_dpo(
            "",
            describe(str(self.base)),
            shapes_of(self.adapters[0]),
            settings.batch_size,
            filled(max(example.length for example in self.examples)),
            "bfloat16" if self.device == "cuda" else "float32",
            settings.gradient_checkpointing is True,
            members,
            max(max(len(example.chosen_ids), len(example.rejected_ids)) for example in self.examples),
        ).gib


def matmul_rate(device: str) -> float:
    """FLOP/s of a large matrix product: in bfloat16 on a GPU, in float32 on a CPU."""
    import torch

    size, dtype = (8192, torch.bfloat16) if device == "cuda" else (1024, torch.float32)
    left = torch.randn(size, size, device=device).to(dtype)
    seconds = []
    for _ in range(8):
        wait(device)
        began = time.perf_counter()
        left @ left
        wait(device)
        seconds.append(time.perf_counter() - began)
    return 2.0 * size**3 / median(seconds[2:])


def wait(device: str) -> None:
    """Until the device has done what it was given."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pool", choices=SHAPES, default="toy")
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--folder", type=Path, help="where pools are made and kept; default: a temporary one")
    parser.add_argument("--pairs", type=int, help="default: as many as suit the pool")
    parser.add_argument(
        "--shape", choices=["tiny"], help="tiny weights and pairs for the pool 7b, to try it on a CPU"
    )
    parser.add_argument("--together", type=int, help="members at the same time; default: all")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        bench = Bench(
            given.pool,
            folder,
            given.members,
            given.device,
            given.shape == "tiny",
            given.together,
            given.pairs,
        )
        rate, lines = matmul_rate(given.device), list(bench.lines(given.repeats))
        flop = bench.flop
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft", "trl"))
    print(
        f"{given.pool}, {given.members} members x {len(bench.examples)} pairs of {bench.tokens / len(bench.examples):.0f} tokens, ",
        end="",
    )
    print(
        f"{given.device}, medians of {given.repeats} in turn; matrix product {rate / 1e12:.2f} TFLOP/s; Python {platform.python_version()}, {packages}\n"
    )
    print(
        "| | seconds | processor seconds | ms a pair | tokens/s | of plain TRL | of the matrix product's rate | peak GiB | estimate |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for line in lines:
        pairs = line.members * len(bench.examples)
        memory = " | ".join("" if value is None else f"{value:.1f}" for value in (line.peak, line.estimate))
        print(
            f"| {line.what} | {line.wall:.2f} | {line.processor:.2f} | {1000 * line.trained / pairs:.1f} "
            f"| {line.members * bench.tokens / line.trained:,.0f} | {line.processor / lines[0].processor:.2f} "
            f"| {flop / line.trained / rate:.1%} | {memory} |"
        )


if __name__ == "__main__":
    main()

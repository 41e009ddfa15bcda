"""DPO measured: python tests/bench/training.py

The product against plain TRL on the same pairs, and members together against one by one, all from the adapters of one base. Prints a markdown
table with the versions. --pool toy (the embedded pool), small (random weights, 256 wide), or 7b (Qwen2.5-7B's shape, made on the GPU).
"""

import argparse
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]
from pools import random_pool  # noqa: E402

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


@dataclass(frozen=True)
class Line:
    """One way to train, measured. peak, estimate: GiB of GPU memory, None on a CPU."""

    what: str
    members: int
    wall: float
    processor: float
    peak: float | None
    estimate: float | None


class Bench:
    def __init__(self, pool: str, folder: Path, members: int, device: str) -> None:
        self.shape, self.folder, self.device = SHAPES[pool], folder, device
        if pool == "toy":
            base, adapters = BASE, [BASE.parent / "adapters" / name for name in EXPERTS]
        else:
            made = random_pool(folder / pool, pool).parent
            base, adapters = made / "base", sorted((made / "adapters").iterdir())
        self.base, self.adapters = base, adapters[:members]
        rng = Random(0)

        def ids(count: int) -> tuple[int, ...]:
            drawn = max(1, round(rng.gauss(count, count / 4)))
            return tuple(rng.randrange(self.shape.highest) for _ in range(drawn))

        self.examples = tuple(
            PreferenceExample(ids(self.shape.prompt), ids(self.shape.completion), ids(self.shape.completion))
            for _ in range(self.shape.pairs)
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

    def plain(self) -> None:
        from support.plain_trl import plain_trl

        for number, job in enumerate(self.jobs()):
            plain_trl(job, self.folder / "made" / f"trl{number}")

    def one_task_each(self) -> None:
        for job in self.jobs():
            train_members([job], 1, lambda _: silent, lambda *_: None)

    def one_by_one(self) -> None:
        train_members(self.jobs(), 1, lambda _: silent, lambda *_: None)

    def together(self) -> None:
        train_members(self.jobs(), len(self.adapters), lambda _: silent, lambda *_: None)

    def lines(self, repeats: int) -> Iterator[Line]:
        """In turn, so that what else the machine does falls on all alike; medians."""
        ways: dict[str, tuple[Callable[[], None], int]] = {
            "plain TRL": (self.plain, 0),
            "Sparta, one task each": (self.one_task_each, 1),
            "Sparta, one by one in a task": (self.one_by_one, 1),
            "Sparta, together": (self.together, len(self.adapters)),
        }
        seen: dict[str, list[tuple[float, float, float | None]]] = {name: [] for name in ways}
        for _ in range(repeats + 1):
            for name, (way, _at_once) in ways.items():
                seen[name].append(self._measured(way))
        for name, (_way, at_once) in ways.items():
            # The first of each pays for imports and caches.
            wall, processor, peak = zip(*seen[name][1:], strict=True)
            estimate = self._estimate(at_once) if at_once and self.device == "cuda" else None
            yield Line(name, len(self.adapters), median(wall), median(processor), peak[-1], estimate)

    def _measured(self, way: Callable[[], None]) -> tuple[float, float, float | None]:
        import torch

        on_gpu = self.device == "cuda"
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        began, used = time.perf_counter(), time.process_time()
        way()
        peak = torch.cuda.max_memory_reserved() / GIB if on_gpu else None
        return time.perf_counter() - began, time.process_time() - used, peak

    def _estimate(self, members: int) -> float:
        settings = Dpo(**self.shape.settings)
        return of_dpo(
            "",
            describe(str(self.base)),
            shapes_of(self.adapters[0]),
            settings.batch_size,
            filled(max(example.length for example in self.examples)),
            "bfloat16",
            settings.gradient_checkpointing is True,
            members,
            max(max(len(example.chosen_ids), len(example.rejected_ids)) for example in self.examples),
        ).gib


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pool", choices=SHAPES, default="toy")
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--folder", type=Path, help="where pools are made and kept; default: a temporary one")
    parser.add_argument("--pairs", type=int, help="default: as many as suit the pool")
    given = parser.parse_args()
    if given.pairs:
        SHAPES[given.pool] = replace(SHAPES[given.pool], pairs=given.pairs)
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(given.pool, given.folder or Path(temporary), given.members, given.device)
        lines = list(bench.lines(given.repeats))
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft", "trl"))
    print(
        f"{given.pool}, {given.members} members x {len(bench.examples)} pairs of {bench.tokens / len(bench.examples):.0f} tokens, ",
        end="",
    )
    print(
        f"{given.device}, medians of {given.repeats} in turn; Python {platform.python_version()}, {packages}\n"
    )
    print("| | seconds | processor seconds | ms a pair | tokens/s | of plain TRL | peak GiB | estimate |")
    print("|---|---|---|---|---|---|---|---|")
    for line in lines:
        pairs = line.members * len(bench.examples)
        memory = " | ".join("" if value is None else f"{value:.1f}" for value in (line.peak, line.estimate))
        print(
            f"| {line.what} | {line.wall:.2f} | {line.processor:.2f} | {1000 * line.wall / pairs:.1f} "
            f"| {line.members * bench.tokens / line.wall:,.0f} | {line.processor / lines[0].processor:.2f} | {memory} |"
        )


if __name__ == "__main__":
    main()

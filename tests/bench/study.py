"""A study of many tiny runs whose cells and driver are killed: python tests/bench/study.py --cells 45

One cell is killed, one has a broken recipe, the driver is killed twice. Then the recipe is mended, and the same command heals the study. Prints how
many cells were done at each step, how often the initial pool answered, and the disk of the study against that of one cell.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.scripted_run import command, quiet, wait_until  # noqa: E402
from support.study_runs import results, write_study  # noqa: E402

ADAPTER_MIB = 1
"""Of each member of the initial pool, so that copies would show."""


def prepared(folder: Path, cells: int) -> Path:
    """A study of `cells` runs, the last of which names a file that is not there yet."""
    for member in range(3):
        adapter = folder / "adapters" / f"model{member}"
        adapter.mkdir(parents=True)
        (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 1}))
        values = np.full(ADAPTER_MIB * 2**18, member, dtype=np.float32)
        save_file({"weight": values}, adapter / "adapter_model.safetensors")
    levels: dict[str, dict[str, object]] = {f"c{number:02}": {"seed": number} for number in range(cells)}
    levels[f"c{cells - 1:02}"]["data.train"] = "later.jsonl"
    return write_study(folder, {"cell": levels})


def start(path: Path, limit: int) -> "subprocess.Popen[str]":
    arguments = (path, "--state", path.parent / "study", "--limit", limit)
    return subprocess.Popen(
        command("study", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=quiet(),
        start_new_session=True,
    )


def done(place: Path) -> int:
    return sum(not result.error for result in results(place).values())


def running(place: Path) -> list[int]:
    """Process ids of cells whose run has begun."""
    notes = [path for path in (place / "running").glob("c*.json") if path.is_file()]
    return [
        json.loads(path.read_text())["process"]["pid"]
        for path in notes
        if (place / "cells" / path.stem / "run.json").is_file()
    ]


def disk(folder: Path) -> int:
    """Bytes of the files below `folder`, each inode once."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            stat = path.stat()
            found[stat.st_ino] = stat.st_size
    return sum(found.values())


def answers_of_initial_pool(place: Path) -> Counter[str]:
    """Answers by checkpoints of iter_00 that engines made, by the run that made them."""
    made = Counter[str]()
    for path in place.glob("*/*/evals/own/*/answers-*/a*-*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        made[path.relative_to(place).parts[1]] += sum(row["checkpoint"].startswith("iter_00") for row in rows)
    return +made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=45)
    parser.add_argument("--limit", type=int, default=2, help="cells side by side")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        path = prepared(Path(temporary) / "files", asked.cells)
        place, began = path.parent / "study", time.monotonic()
        first = start(path, asked.limit)
        wait_until(lambda: done(place) >= asked.cells // 9 and running(place), 3600)
        os.kill(running(place)[0], signal.SIGKILL)
        print(f"{time.monotonic() - began:.0f} s: a cell killed, {done(place)} done", flush=True)
        for share in (3, 2):
            wait_until(lambda: done(place) >= asked.cells // share and running(place), 3600)  # noqa: B023
            first.kill()
            first.wait()
            print(f"{time.monotonic() - began:.0f} s: the driver killed, {done(place)} done", flush=True)
            first = start(path, asked.limit)
        said, _ = first.communicate()
        failed = [name for name, result in results(place).items() if result.error]
        print(
            f"{time.monotonic() - began:.0f} s: exit status {first.returncode}, {done(place)} done, failed {failed}"
        )
        print(said.splitlines()[-1])
        (path.parent / "later.jsonl").write_text((path.parent / "prompts.jsonl").read_text())
        healed = start(path, asked.limit)
        healed.communicate()
        print(
            f"{time.monotonic() - began:.0f} s: healed, exit status {healed.returncode}, {done(place)} done"
        )
        print(f"answers of initial pools that were made, by run: {dict(answers_of_initial_pool(place))}")
        one = disk(place / "cells" / "c00")
        print(
            f"disk: {disk(place) / 2**20:.1f} MiB for {asked.cells} cells, {one / 2**20:.1f} MiB for one, "
            f"{asked.cells * one / 2**20:.1f} MiB without sharing"
        )


if __name__ == "__main__":
    main()

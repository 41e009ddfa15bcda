"""Does the toy pool learn? python tests/bench/learning.py [--seeds 0 1 2 3 4] [--keep DIR]

For each seed: eight iterations of the toy recipe, then the best model of the first and of the last pool by validation, scored on the
test split; and the share of the first iteration's labels that agree with the truth. Prints a table, mean and spread. States are kept in
DIR, where a run that is there already is continued or taken as it is.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean, stdev

from sparta.evaluation.selection import INITIAL, LAST
from sparta.evaluation.summary import TaskScores, choice_of, read_summary
from sparta.store.layout import StateDir
from sparta.store.run import Run

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from analysis.truth import agreement  # noqa: E402


def run_seed(folder: Path, seed: int, settings: list[str]) -> dict[str, float]:
    """Scores in [0, 1] of one seed, and seconds of its iterations."""
    state = folder / f"seed-{seed}"
    command = [sys.executable, str(ROOT / "jobs" / "launch.py"), "--recipe", "toy", "--state", str(state)]
    for setting in (f"seed={seed}", "cluster.kind=inline", *settings):
        command += ["--set", setting]
    began = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - began
    subprocess.run(
        [sys.executable, str(ROOT / "jobs" / "evaluate.py"), str(state)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    scored = read_summary(StateDir(state)).tasks["toy"]
    first, last = (_test_accuracy(scored, what) for what in (INITIAL, LAST))
    means = {
        t: [
            score
            for name, score in scored.validation.items()
            if name.startswith(f"iter_{t:02d}") and score is not None
        ]
        for t in (0, 8)
    }
    labels = agreement(Run.open(StateDir(state)), 1)
    return {
        "seed": seed,
        "initial": first,
        "final": last,
        "gain": last - first,
        "initial pool mean": fmean(means[0]),
        "final pool mean": fmean(means[8]) if means[8] else float("nan"),
        "labels right": labels.share,
        "judges": labels.discerning,
        "seconds": seconds,
    }


def _test_accuracy(scored: TaskScores, what: str) -> float:
    choice = choice_of(scored, (what,), "toy")
    assert choice is not None and choice.test["accuracy"].mean is not None
    return choice.test["accuracy"].mean


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    print(
        f"{'seed':>4} {'best initial':>13} {'best of last':>13} {'gain':>7} {'pool mean':>16} {'labels right':>13} {'judges':>7} {'seconds':>8}"
    )
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for seed in args.seeds:
            row = run_seed(args.keep or Path(temporary), seed, args.settings)
            rows.append(row)
            print(
                f"{seed:>4} {row['initial']:>13.1%} {row['final']:>13.1%} {100 * row['gain']:>+7.1f} "
                f"{row['initial pool mean']:>7.1%} {row['final pool mean']:>8.1%} {row['labels right']:>13.1%} "
                f"{row['judges']:>7.0f} {row['seconds']:>8.0f}",
                flush=True,
            )
    gains = [100 * row["gain"] for row in rows]
    spread = stdev(gains) if len(gains) > 1 else 0.0
    print(
        f"gain: mean {fmean(gains):+.1f} points, standard deviation {spread:.1f}, better in {sum(gain > 0 for gain in gains)} of {len(gains)} seeds"
    )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()

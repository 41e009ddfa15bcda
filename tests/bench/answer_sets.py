"""Measures how long the measures of diversity take: 10 models, 1,000 prompts, 10 samples each, without embeddings.

python tests/bench/answer_sets.py [--prompts N] [--words N] [--workers N]
"""

import argparse
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from sparta.store.records import SampledAnswer
from sparta.store.run import Run
from sparta.store.shards import ShardWriter

sys.path[:0] = [str(Path(__file__).parents[2] / "analysis"), str(Path(__file__).parents[1])]

from diversity import sets, table2  # noqa: E402
from support.scripted_run import begin  # noqa: E402

MODELS, SAMPLES = 10, 10


def write_samples(run: Run, prompts: int, words: int) -> None:
    """Answers of about `words` words: variations of one answer a prompt, in a vocabulary as skewed as that of a language."""
    draw = random.Random(0)
    vocabulary = ["".join(draw.choices("etaoinshrdlu", k=draw.randint(2, 9))) for _ in range(5000)]
    weights = [1 / (rank + 1) for rank in range(len(vocabulary))]
    folder = run.state.evaluation("own", "validation").samples("chat-512-t0.7-p0.95-k50")
    with ShardWriter(folder, 0, 0, flush_seconds=60) as rows:
        for prompt in range(prompts):
            common = draw.choices(vocabulary, weights, k=words)
            for model in run.models:
                for number in range(SAMPLES):
                    text = [
                        word if draw.random() < 0.6 else other
                        for word, other in zip(
                            common, draw.choices(vocabulary, weights, k=words), strict=True
                        )
                    ]
                    text = text[: draw.randint(words // 2, words)]
                    rows.write(
                        SampledAnswer(
                            "own", f"iter_00-{model}", f"q{prompt}", number, " ".join(text), 1, 1, "stop"
                        )
                    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--words", type=int, default=300)
    parser.add_argument("--workers", type=int, help="processes (default: one a CPU)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = begin(Path(folder), models=MODELS)
        write_samples(run, args.prompts, args.words)
        began, used = time.monotonic(), cpu_seconds()
        frame = sets(run, workers=args.workers)
        seconds, used = time.monotonic() - began, cpu_seconds() - used
        print(
            f"{len(frame):,} sets of {SAMPLES} answers: {seconds:.0f} s by the clock, {used:.0f} CPU-seconds, {1000 * used / len(frame):.1f} ms a set"
        )
        began = time.monotonic()
        print(table2(frame).to_string(index=False))
        print(f"Table 2 with intervals: {time.monotonic() - began:.1f} s")


def cpu_seconds() -> float:
    """CPU time of this process and its ended children."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, kinds))


if __name__ == "__main__":
    main()

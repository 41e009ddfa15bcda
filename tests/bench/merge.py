"""How long the merge takes and how much memory it needs: python tests/bench/merge.py [N ...]

For each N (default 1000, 10000, 100000 combats; ten models, so 16 N votes) a state with random responses and votes is written and
merged in a process of its own. Prints one table; --json FILE keeps it.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sparta.arena.reputation import initial_standing
from sparta.chat.template import Message
from sparta.phases.merge import Merge
from sparta.phases.plan import Plan
from sparta.recipes.schema import Recipe
from sparta.store import files
from sparta.store.layout import StateDir
from sparta.store.records import Instruction, Response, Vote
from sparta.store.run import Run
from sparta.store.shards import ShardWriter

MODELS = 10
SHARDS = 16
RESPONSE_TOKENS = 120


def recipe(n: int) -> Recipe:
    models = [{"name": f"model{index}", "adapter": "none"} for index in range(MODELS)]
    return Recipe.model_validate(
        {
            "name": "bench",
            "combats": n,
            "pool": {"base": "none", "models": models},
            "data": {"train": "none"},
            "engine": {"kind": "scripted"},
        }
    )


def write_state(folder: Path, n: int) -> None:
    """A run whose first iteration is ready to be merged."""
    stream = random.Random(n)
    state = StateDir(folder)
    asked = recipe(n)
    run = Run(state, asked, Run.describe(asked))
    run.freeze()
    run.save()
    instructions = (
        Instruction(f"q{index}", (Message("user", f"question {index} " * 20),)) for index in range(2000)
    )
    files.write_rows(state.instructions, instructions)
    zero = {name: initial_standing(run.recipe.reputation) for name in run.models}
    files.write_json(run.iteration(0).standing, zero)
    Plan().execute(run, 1)
    first = run.iteration(1)
    responses = [ShardWriter(first.responses, 0, shard, flush_seconds=1e9) for shard in range(SHARDS)]
    votes = [ShardWriter(first.votes, 0, shard, flush_seconds=1e9) for shard in range(SHARDS)]
    for index, combat in enumerate(run.plan(1)):
        for model in combat.models:
            tokens = tuple(stream.choices(range(150000), k=RESPONSE_TOKENS))
            text = f"{model} says {stream.random()} " + "word " * (RESPONSE_TOKENS - 10)
            row = Response(combat.combat_id, model, text, tokens, "t", 100, RESPONSE_TOKENS, "stop", 0.1)
            responses[index % SHARDS].write(row)
            for judge in run.models:
                if judge not in combat.models:
                    score = float(stream.randint(1, 10))
                    vote = Vote(combat.combat_id, model, judge, score, f'{{"score": {score:.0f}}}', 1, 300, 8)
                    votes[stream.randrange(SHARDS)].write(vote)
    for writer in (*responses, *votes):
        writer.close()


def merge(folder: Path) -> None:
    """Merge the state in `folder` and print seconds, processor seconds and peak memory as JSON."""
    run = Run.open(StateDir(folder))
    began, used = time.perf_counter(), time.process_time()
    Merge().execute(run, 1)
    seconds, processor = time.perf_counter() - began, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": round(seconds, 2), "processor": round(processor, 2), "gib": round(peak, 2)}))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("n", nargs="*", type=int, default=[1000, 10_000, 100_000])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        merge(args.one)
        return
    rows = []
    print(f"{'combats':>9} {'votes':>10} {'seconds':>8} {'processor':>10} {'us a vote':>10} {'peak GiB':>9}")
    for n in args.n:
        with tempfile.TemporaryDirectory() as folder:
            write_state(Path(folder), n)
            command = [sys.executable, __file__, "--one", folder]
            result = subprocess.run(command, check=True, capture_output=True, text=True)
        votes = 2 * n * (MODELS - 2)
        row = {"combats": n, "votes": votes, **json.loads(result.stdout)}
        rows.append(row)
        # Other work on the machine does not count.
        each = row["processor"] / votes * 1e6
        print(
            f"{n:>9,} {votes:>10,} {row['seconds']:>8.2f} {row['processor']:>10.2f} {each:>10.1f} {row['gib']:>9.2f}",
            flush=True,
        )
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()

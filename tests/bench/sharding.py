"""How well a paper-sized iteration is dealt: python tests/bench/sharding.py [--combats N] [--draws N] | --state DIR

Ten models, 1,000 combats, eight judges. Prompts are real ones of ../shared/data, answers are as long as real answers there, from another
source for each model. Nobody has real verdicts: their lengths are drawn around a mean of 8 to 28 tokens for each judge. What is dealt is
the second iteration of a state on disk whose first one has such responses, by the code that deals a real run.

For each dealing: a time before which no dealing is through (all tasks loaded equally, with no more loads than needed), the time by the costs that were
known when it was dealt, and the time with the lengths that then came out, mean and worst of some draws, against the least time for those.
The same again with starts left out, which are long beside a small share of the work. Last, how many tasks of 16 would be chosen.
With --state: what the attempts of a real run were dealt, and what their tasks took.
"""

import argparse
import json
import math
import random
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Literal

from sparta.arena.reputation import initial_standing
from sparta.chat.template import Message
from sparta.cluster.attempts import AttemptDir
from sparta.cluster.gpu_time import records_of, span_of
from sparta.cluster.parallelism import sharded, task_count
from sparta.cluster.throughput import rates_of
from sparta.methods.registry import phases_of
from sparta.phases import token_costs
from sparta.phases.base import RowPhase, WorkItem
from sparta.phases.generate import Generate
from sparta.phases.judge import Judge
from sparta.phases.plan import Plan
from sparta.recipes.schema import Recipe
from sparta.store import files
from sparta.store.layout import StateDir
from sparta.store.records import Instruction, Response
from sparta.store.run import Run
from sparta.store.shards import ShardWriter
from sparta.store.stats import IterationStats, JudgeStats

DATA = Path(__file__).parents[3] / "shared" / "data"
ANSWERS = (
    ("alpaca/raw/random_9k.json", "output"),
    ("alpaca/raw/claude_t45.json", "output"),
    ("alpaca/raw/helpfulness_t45.json", "output"),
    ("alpaca/raw/alpaca_eval_text_davinci_003.json", "output"),
    ("alpaca/raw/alpaca_eval_gpt4_1106_preview.json", "output"),
    ("gsm8k/raw/train.jsonl", "answer"),
    ("math/raw/train_easy.jsonl", "solution"),
    ("math/raw/train_medium.jsonl", "solution"),
    ("sft_dolly_standin/raw/dolly_3k.json", "output"),
    ("sft_code_alpaca/raw/code_alpaca_2k.json", "output"),
)
"""File and field of the answers whose lengths the responses of each model have."""
PROMPTS = 5000
LONGEST_ANSWER = 512
LONGEST_VERDICT = 32

Mode = Literal["text", "expected"]


def rows(name: str) -> list[dict[str, str]]:
    text = (DATA / name).read_text(encoding="utf-8")
    found: list[dict[str, str]] = (
        [json.loads(line) for line in text.splitlines()] if name.endswith("l") else json.loads(text)
    )
    return found


@dataclass(frozen=True)
class Lengths:
    """Of what models write, in tokens. answers: of real ones, by model. verdicts: the mean, by judge."""

    answers: Mapping[str, Sequence[int]]
    verdicts: Mapping[str, float]

    def answer(self, model: str, stream: random.Random) -> int:
        return stream.choice(self.answers[model])

    def verdict(self, judge: str, mode: Mode, stream: random.Random) -> float:
        drawn = round(stream.gauss(self.verdicts[judge], 4))
        return 1.0 if mode == "expected" else float(min(LONGEST_VERDICT, max(4, drawn)))


def real_lengths() -> Lengths:
    stream = random.Random("verdicts")
    answers = {
        f"model{number}": [min(LONGEST_ANSWER, max(1, len(row[field]) // 4)) for row in rows(name)]
        for number, (name, field) in enumerate(ANSWERS)
    }
    return Lengths(answers, {model: stream.uniform(8, 28) for model in answers})


def recipe(combats: int, bases: int, mode: Mode, tasks: int | None) -> Recipe:
    """Ten models, dealt out to so many bases in turn."""
    models = [
        {"name": f"model{number}", "base": f"base{number % bases}", "adapter": "none"}
        for number in range(len(ANSWERS))
    ]
    return Recipe.model_validate(
        {
            "name": "dealing",
            "combats": combats,
            "pool": {"models": models},
            "data": {"train": "none"},
            # Nothing runs: the kind says that a start takes time.
            "engine": {"kind": "hf"},
            "judging": {"mode": mode},
            "cluster": {"tasks": tasks},
        }
    )


def write_responses(run: Run, t: int, lengths: Lengths, stream: random.Random) -> dict[str, int]:
    """Every response of iteration t, as long as drawn; the lengths by key."""
    drawn = {}
    with ShardWriter(run.iteration(t).responses, 0, 0, flush_seconds=1e9) as writer:
        for combat in run.plan(t):
            for model in combat.models:
                new = lengths.answer(model, stream)
                row = Response(combat.combat_id, model, f"answer of {model}", (), "", 0, new, "stop")
                writer.write(row)
                drawn[row.key] = new
    return drawn


def second_iteration(folder: Path, asked: Recipe, lengths: Lengths, seed: int = 0) -> Run:
    """A run whose first iteration has responses and votes and whose second one is planned."""
    run, stream = Run(StateDir(folder), asked, Run.describe(asked)), random.Random(seed)
    run.freeze()
    texts = ["\n\n".join(filter(None, (row["instruction"], row["input"]))) for row in rows(ANSWERS[0][0])]
    files.write_rows(
        run.state.instructions,
        (Instruction(f"q{number}", (Message("user", text),)) for number, text in enumerate(texts[:PROMPTS])),
    )
    zero = {name: initial_standing(asked.reputation) for name in run.models}
    for t in (0, 1):
        files.write_json(run.iteration(t).standing, zero)
        Plan().execute(run, t + 1)
    write_responses(run, 1, lengths, stream)
    said = {
        judge: [lengths.verdict(judge, asked.judging.mode, stream) for _ in range(asked.combats)]
        for judge in run.models
    }
    judges = {
        judge: JudgeStats(votes=len(found), new_tokens=round(sum(found))) for judge, found in said.items()
    }
    files.write_json(run.iteration(1).stats, IterationStats(asked.combats, {}, 0, {}, {}, judges, 0))
    return run


@dataclass(frozen=True)
class Dealing:
    """Shards, and what their starts cost. Costs are in generated tokens, times in seconds."""

    shards: list[list[WorkItem]]
    throughput: float
    start_cost: float

    def seconds(self, costs: Mapping[str, float]) -> float:
        """Until the last shard is through, its starts included."""
        return (
            max(
                math.fsum(costs[item.key] for item in shard)
                + self.start_cost * len({item.base for item in shard})
                for shard in self.shards
            )
            / self.throughput
        )

    def least(self, costs: Mapping[str, float]) -> float:
        """No dealing to so many shards is through before.

        Each shard loads a base; and a base whose work is more than a shard that loads it has room for is loaded as often as that takes.
        """
        work: dict[str, float] = defaultdict(float)
        for shard in self.shards:
            for item in shard:
                work[item.base] += costs[item.key]
        total, tasks, start = math.fsum(work.values()), len(self.shards), self.start_cost
        low, high = start, start * len(work) + total
        while high - low > 1e-9 * high:
            middle = (low + high) / 2
            loads = sum(math.ceil(cost / (middle - start)) for cost in work.values())
            enough = total + start * max(loads, tasks) <= tasks * middle
            low, high = (low, middle) if enough else (middle, high)
        return high / self.throughput

    def over(self, costs: Mapping[str, float]) -> float:
        """How much later than at least, as a share."""
        return self.seconds(costs) / self.least(costs) - 1

    @property
    def known(self) -> dict[str, float]:
        return {item.key: item.cost for shard in self.shards for item in shard}


def deal_phase(run: Run, phase: RowPhase, tasks: int) -> Dealing:
    rates = rates_of(run, phase)
    shards = sharded(run, phase, 2, phase.work(run, 2), tasks)
    return Dealing(shards, rates.throughput, rates.start_cost)


def drawn_costs(
    run: Run, phase: RowPhase, known: Mapping[str, float], lengths: Lengths, stream: random.Random
) -> dict[str, float]:
    """What the items cost in the end: the expected part of each replaced by a length that is drawn."""
    mode, expected = run.recipe.judging.mode, token_costs.expected_tokens(run, 2)
    if isinstance(phase, Generate):
        models = ((key, key.rpartition("/")[2]) for key in known)
        return {key: known[key] - expected[model] + lengths.answer(model, stream) for key, model in models}
    judges = ((key, key.rpartition("/")[2]) for key in known)
    said = token_costs.expected_verdicts(run, 2)
    return {key: known[key] - said[judge] + lengths.verdict(judge, mode, stream) for key, judge in judges}


def shown(folder: Path, combats: int, draws: int, bases: int, mode: Mode, tasks: int) -> Iterator[str]:
    """One line a phase. Judges are dealt twice: before responses exist (a detached launch), and after."""
    lengths, stream = real_lengths(), random.Random(1)
    run = second_iteration(folder, recipe(combats, bases, mode, tasks), lengths)
    free = Run(run.state, recipe(combats, bases, mode, None), run.info)
    early = deal_phase(run, Judge(), tasks)
    first = deal_phase(run, Generate(), tasks)
    cases: list[tuple[str, RowPhase, Dealing]] = [("generate", Generate(), first)]
    actual = [drawn_costs(run, Generate(), first.known, lengths, stream) for _ in range(draws)]
    finals = {"generate": actual}
    write_responses(run, 2, lengths, stream)
    late = deal_phase(run, Judge(), tasks)
    cases += [("judge", Judge(), late), ("judge, detached", Judge(), early)]
    finals["judge"] = [drawn_costs(run, Judge(), late.known, lengths, stream) for _ in range(draws)]
    finals["judge, detached"] = finals["judge"]
    for name, phase, dealing in cases:
        known, bare = dealing.known, replace(dealing, start_cost=0.0)
        over = [dealing.over(final) for final in finals[name]]
        work = [bare.over(final) for final in finals[name]]
        items = [item for shard in dealing.shards for item in shard]
        chosen = task_count(free, phase, items, 16)
        loads = sum(len({item.base for item in shard}) for shard in dealing.shards)
        yield (
            f"{bases:5} {mode:9}{name:16}{len(dealing.shards):5}{loads:6}{dealing.least(known):9.1f}"
            f"{dealing.seconds(known):9.1f}{dealing.over(known):8.2%}"
            f"{fmean(over):9.2%}{max(over):8.2%}{bare.over(known):10.2%}{fmean(work):8.2%}{chosen:8}"
        )


def recorded(state: Path) -> Iterator[str]:
    """One line an attempt of a real run: how equal its shards were in cost, and in seconds."""
    run = Run.open(StateDir(state))
    for t in run.state.iterations():
        for phase in phases_of(run.recipe, t):
            attempts = AttemptDir(run, phase, t)
            for attempt, records in records_of(attempts):
                took = [
                    span_of(run, attempts, attempt, record).seconds
                    for record in records
                    if record.outcome == "done"
                ]
                if phase.device == "gpu" and attempt.costs and took:
                    loads = sum(record.load_seconds for record in records)
                    yield (
                        f"{t:4} {phase.name:10}{attempt.number:4}{attempt.shards:7}{sum(attempt.costs):12.0f}"
                        f"{max(attempt.costs) / fmean(attempt.costs) - 1:9.2%}{max(took):9.1f}"
                        f"{max(took) / fmean(took) - 1:9.2%}{loads:9.1f}"
                    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--combats", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=10, help="of the lengths that come out")
    parser.add_argument("--state", type=Path, help="a run to look at instead")
    asked = parser.parse_args()
    if asked.state:
        print("   t phase    number shards        cost  uneven   longest  uneven    loads")
        print(*recorded(asked.state), sep="\n")
        return
    if not DATA.is_dir():
        print(f"there is no {DATA}: nothing to draw from")
        return
    print(
        "                                             starts included                      without starts\n"
        "bases mode     phase           tasks loads    least  by cost    over    drawn   worst      over   drawn  chosen"
    )
    modes: tuple[Mode, ...] = ("text", "expected")
    for bases in (1, 2, 10):
        for tasks in (16, 4):
            for mode in modes:
                with tempfile.TemporaryDirectory() as folder:
                    print(
                        *shown(Path(folder), asked.combats, asked.draws, bases, mode, tasks),
                        sep="\n",
                        flush=True,
                    )


if __name__ == "__main__":
    main()

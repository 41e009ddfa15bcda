"""A synthetic run of any size up to the paper's, for tests and measurements of what reads states.

Responses, votes, answers and grades are made up; plan, merge, commits, choices and the summary are those of the suite, so the state is valid. Models
have skills that grow from iteration to iteration; better models give better answers, get better votes and judge with less error.
"""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from sparta.chat.template import Message
from sparta.evaluation.answer import Answers, checkpoint_name
from sparta.evaluation.grade import Grades
from sparta.evaluation.items import items_file
from sparta.phases.undecidable import why_undecidable
from sparta.store import files
from sparta.store.records import Answer, Grade, Response, Vote
from sparta.store.run import Run
from sparta.store.shards import shard_file
from sparta.store.stats import IterationStats, TimeAccount
from sparta.tasks.base import Item, Split, Task
from sparta.tasks.registry import task_named
from support.scripted_run import advance, begin, typed

SPLITS: Mapping[str, tuple[int, int]] = {
    "medqa": (636, 637),
    "normad_country": (132, 132),
    "normad_value": (132, 132),
    "normad_rot": (132, 132),
    "kcross": (200, 200),
    "gsm8k": (660, 659),
    "com2": (400, 400),
    "math_easy": (666, 665),
    "math_medium": (566, 565),
    "math_hard": (1269, 1269),
    "alpaca": (402, 403),
    "truthfulqa": (400, 400),
}
"""The paper's tasks, with their validation and test items (table 4)."""
WORDS = [
    "the",
    "model",
    "reads",
    "a",
    "question",
    "and",
    "writes",
    "an",
    "answer",
    "that",
    "other",
    "models",
    "of",
    "the",
    "pool",
    "then",
    "judge",
    "from",
    "one",
    "to",
    "ten",
]
UPDATES = 200
"""Lines of the log of each training."""


@dataclass(frozen=True)
class Size:
    """models, combats, iterations: of the run. items: share of each split's items. words: of a response, at most."""

    models: int = 10
    combats: int = 1000
    iterations: int = 8
    items: float = 1.0
    words: int = 300
    tasks: tuple[str, ...] = tuple(SPLITS)

    def of_split(self, task: str, split: Split) -> int:
        return max(2, round(SPLITS[task][split == "test"] * self.items))


def write_run(folder: Path, size: Size = Size(), **changes: object) -> Run:
    """The run in folder/state, committed and scored."""
    run = begin(
        # The command that scores it runs in another folder.
        folder.resolve(),
        models=size.models,
        combats=size.combats,
        prompts=2 * size.combats,
        iterations=size.iterations,
        evaluation={"judge": {"base": "umpire", "engine": {"kind": "scripted"}}},
        **changes,
    )
    # A launch would ask for the data of these tasks, which is not prepared.
    evaluation = run.recipe.evaluation.model_copy(update={"tasks": size.tasks})
    run.refreeze(run.recipe.model_copy(update={"evaluation": evaluation}))
    advance(run, 0)
    for t in range(1, size.iterations + 1):
        _play(run, t, size.words)
    for task in size.tasks:
        _score(run, task, "validation", size)
        _score(run, task, "test", size)
    done = typed("evaluate", run.state.root, "--all")
    if done.returncode:
        raise RuntimeError(done.stderr)
    return run


def skill_of(run: Run, t: int, model: str) -> float:
    """From 2.5 to 8 score points: spread over the pool, growing with iterations, and most for the weakest."""
    place = run.models.index(model) / max(1, len(run.models) - 1)
    noise = random.Random(f"{model}/{t}").gauss(0, 0.25)
    return 3.5 + 2.5 * place + (2.0 - place) * (1 - 0.8**t) + noise


def _play(run: Run, t: int, words: int) -> None:
    """Iteration t, with made-up responses and votes."""
    advance(run, t, "plan")
    dice, iteration = random.Random(f"iteration {t}"), run.iteration(t)
    responses: list[Response] = []
    votes: list[Vote] = []
    for combat in run.plan(t):
        same = dice.random() < 0.05
        qualities, sides = [], []
        for model in combat.models:
            quality = dice.gauss(skill_of(run, t - 1, model), 1.5)
            count = dice.randrange(5, words)
            text = "the same answer" if same else " ".join(dice.choices(WORDS, k=count))
            tokens = tuple(dice.choices(range(256), k=min(count, 64)))
            cut = dice.random() < 0.03
            sides.append(
                Response(
                    combat.combat_id,
                    model,
                    text,
                    tokens,
                    "scripted-bytes",
                    60,
                    len(tokens),
                    "length" if cut else "stop",
                    seconds=0.01,
                )
            )
            qualities.append(quality)
        responses += sides
        if why_undecidable([side.text for side in sides], run.recipe.judging) is not None:
            continue
        for model, quality in zip(combat.models, qualities, strict=True):
            for judge in run.models:
                if judge not in combat.models:
                    votes.append(_vote(run, t, combat.combat_id, model, judge, quality, dice))
    files.write_rows(shard_file(iteration.responses, 0, 0), responses)
    files.write_rows(shard_file(iteration.votes, 0, 0), votes)
    advance(run, t)
    _write_account(run, t)
    for model in run.models:
        _write_log(iteration.adapter(model) / "log.jsonl", random.Random(f"{model} learns in {t}"))


def _vote(run: Run, t: int, combat: str, model: str, judge: str, quality: float, dice: random.Random) -> Vote:
    leniency = run.models.index(judge) % 3 - 1
    error = 0.5 + (9 - skill_of(run, t - 1, judge)) / 4
    missing = dice.random() < 0.01
    score = None if missing else float(min(10, max(1, round(dice.gauss(quality + leniency, error)))))
    raw = "I would rather not say." if score is None else f'{{"score": {score:.0f}}}'
    return Vote(combat, model, judge, score, raw, 1 + missing, 400, 8, seconds=0.001)


def _write_account(run: Run, t: int) -> None:
    """Four GPUs for half an hour, a quarter of them idle."""
    path = run.iteration(t).stats
    parts = {"start": 240.0, "generate": 300.0, "judge": 900.0, "train set-up": 160.0, "train": 3800.0}
    account = TimeAccount("GPU", 4, 1800.0, parts, 1800.0)
    stats = files.read_json(path, IterationStats)
    files.write_json(
        path, replace(stats, account=account, gpu_seconds=account.used, gpu_idle=account.idle_share)
    )


def _write_log(path: Path, dice: random.Random) -> None:
    lines = [
        {
            "update": number,
            "loss": 0.693 - 0.25 * number / UPDATES + dice.gauss(0, 0.03),
            "grad_norm": dice.uniform(0.5, 2),
            "learning_rate": 1e-6 * (1 - number / UPDATES),
            "seconds": 0.5 * number,
            "reward_margin": 0.004 * number,
            "reward_accuracy": 0.5 + 0.4 * number / UPDATES,
        }
        for number in range(1, UPDATES + 1)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def items_of(task: str, split: Split, count: int) -> list[Item]:
    """Made-up items that the task's own grader can grade."""
    made = []
    for number in range(count):
        name, question = f"{split}-{number}", (Message("user", f"{split} question {number} of {task}?"),)
        if task in ("medqa", "kcross"):
            choices = {label: f"choice {label} of {number}" for label in "ABCD"}
            made.append(Item(name, question, "A. choice A", choices, "A"))
        elif task.startswith("normad"):
            made.append(Item(name, question, answer="yes"))
        elif task == "truthfulqa":
            choices = {label: f"claim {label} of {number}" for label in "ABCD"}
            made.append(Item(name, question, choices=choices, answer="A", right=("A", "B")))
        elif task in ("alpaca", "com2"):
            made.append(Item(name, question, reference="a good answer"))
        else:
            made.append(Item(name, question, answer=str(number % 10)))
    return made


def answers_to(task: str, item: Item) -> tuple[tuple[str, tuple[float, ...]], tuple[str, tuple[float, ...]]]:
    """Text and log-likelihoods of a right and of a wrong answer."""
    if task == "truthfulqa":
        return ("", (-1.0, -2.0, -3.0, -4.0)), ("", (-4.0, -3.0, -1.0, -2.0))
    if task in ("medqa", "kcross"):
        return ("The answer is A.", ()), ("The answer is B.", ())
    if task.startswith("normad"):
        return ("yes", ()), ("no", ())
    if task in ("alpaca", "com2"):
        return ("A good answer.", ()), ("A poor answer.", ())
    right = item.answer or "0"
    wrong = str(int(right) + 1)
    shape = "\\boxed{%s}" if task.startswith("math") else "#### %s"
    return ("So it is " + shape % right, ()), ("So it is " + shape % wrong, ())


def _score(run: Run, task: str, split: Split, size: Size) -> None:
    """The answers of all checkpoints to a split, and the grades of them that an evaluation asks for."""
    known = task_named(task, run.recipe.data)
    items = items_of(task, split, size.of_split(task, split))
    files.write_rows(items_file(run, task, split), items)
    entries = tuple(run.iteration(t).root.name for t in run.state.committed())
    folder = Answers(task, split, entries).folder(run)
    files.write_rows(shard_file(folder, 0, 0), (answer for answer, _ in _answers(run, known, split, items)))
    rubrics = [metric.name for metric in known.metrics if metric.rubric is not None]
    wanted = rubrics if split == "test" else rubrics[: known.metrics[0].rubric is not None]
    if wanted:
        given = (
            Grade(task, row.checkpoint, row.item_id, metric, score, f'{{"score": {score:.0f}}}', 1)
            for row, score in _answers(run, known, split, items)
            for metric in wanted
        )
        files.write_rows(shard_file(Grades(task, split, entries).folder(run), 0, 0), given)


def _answers(run: Run, task: Task, split: Split, items: Sequence[Item]) -> Iterator[tuple[Answer, float]]:
    """Answers, each with the grade that a judge gives it where one is asked."""
    known = [(item, *answers_to(task.name, item)) for item in map(task.posed, items)]
    graded = [
        (item, *((text, logs, _graded(task, item, text, logs)) for text, logs in both))
        for item, *both in known
    ]
    for t in run.state.committed():
        for model in run.models:
            name, dice = checkpoint_name(run, t, model), random.Random(f"{task.name} {split} {model} {t}")
            skill = skill_of(run, t, model) + random.Random(f"{task.name} {model}").gauss(0, 0.8)
            chance = min(0.98, max(0.02, skill / 9))
            for item, right, wrong in graded:
                text, logs, grades = right if dice.random() < chance else wrong
                tokens = 0 if task.likelihood else 12
                answer = Answer(
                    task.name, name, item.item_id, text, grades, 80, tokens, "stop", logs, seconds=0.01
                )
                yield answer, min(10.0, max(0.0, round(dice.gauss(skill, 1.5))))


def _graded(task: Task, item: Item, text: str, logs: Sequence[float]) -> dict[str, float]:
    if task.likelihood:
        return task.score_likelihoods(item, dict(zip(item.choices, logs, strict=True)))
    return task.grade(item, text)

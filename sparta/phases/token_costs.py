"""Estimated costs of items, in generated tokens: prompts are tokenized, response lengths are predicted from earlier ones.

Used only for sharding, where a wrong estimate costs time but changes no result. Loads no weights and no heavy libraries: a base's
tokenizer.json is read with the tokenizers library; without one, four characters count as a token.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import fmean

from sparta.chat.judge_prompts import judge_content, judging_instruction, question_text
from sparta.chat.template import Message
from sparta.engines.token_count import CHARACTERS_A_TOKEN, FRAME_TOKENS, Count, by_characters, counter_of
from sparta.engines.tokenizers import tokens_of_thinking
from sparta.phases.base import WorkItem
from sparta.pool.members import locate
from sparta.recipes.schema import Recipe
from sparta.store import files
from sparta.store.layout import parse_checkpoint
from sparta.store.records import Answer, Response, SampledAnswer, response_key, vote_key
from sparta.store.run import Run
from sparta.store.shards import iter_shards
from sparta.store.stats import IterationStats
from sparta.tasks.base import Item


def of_responses(run: Run, t: int, items: Sequence[WorkItem]) -> list[WorkItem]:
    """`items` of iteration t with the costs of responses; other items are unchanged."""
    prompt, new, bases = _prompts(run), expected_tokens(run, t), run.bases
    costs = {
        response_key(combat.combat_id, model): _cost(run, prompt(combat.messages, bases[model]), new[model])
        for combat in run.plan(t)
        for model in combat.models
    }
    return _with(items, costs)


def of_votes(run: Run, t: int, items: Sequence[WorkItem]) -> list[WorkItem]:
    """`items` of iteration t with the costs of votes; other items are unchanged.

    An existing response counts with its length, a missing one with its model's expected length.
    """
    prompt, new = _prompts(run), expected_tokens(run, t)
    written = {row.key: tokens_of_answer(row) for row in iter_shards(run.iteration(t).responses, Response)}
    judging, room = run.recipe.judging, run.recipe.engine.context_length
    verdict, frame = expected_verdicts(run, t), _wrapping_tokens(run)
    costs = {}
    for combat in run.plan(t):
        for model in combat.models:
            response = written.get(response_key(combat.combat_id, model), new[model])
            for judge, base in run.bases.items():
                read = prompt(combat.messages, base) + response + frame(base)
                fits = min(read, max(0.0, float(room - judging.max_new_tokens)))
                costs[vote_key(combat.combat_id, model, judge)] = _cost(run, fits, verdict[judge])
    return _with(items, costs)


def of_answers(
    run: Run,
    items: Sequence[WorkItem],
    questions: Mapping[str, Item],
    folder: Path,
    limit: int,
    of: type[Answer] | type[SampledAnswer] = Answer,
) -> list[WorkItem]:
    """`items` of one task's evaluation, with the keys of answers, with their costs. questions: by item id. folder: of existing answers, which are
    rows of the type `of`. limit: new tokens.

    The expected length of an answer is the mean over its checkpoint's answers, else over those of the same model at other iterations, else over all.
    """
    lengths = defaultdict[str, list[float]](list)
    rows: Iterable[Answer | SampledAnswer] = iter_shards(folder, of)
    for row in rows:
        length = _length(row)
        for known in (row.checkpoint, parse_checkpoint(row.checkpoint)[1], ""):
            lengths[known].append(length)
    usual = {known: fmean(found) for known, found in lengths.items()}
    prompt = _prompts(run)

    def cost(item: WorkItem) -> float:
        _, checkpoint, item_id = item.key.split("/", maxsplit=2)
        names = (checkpoint, parse_checkpoint(checkpoint)[1], "")
        new = next((usual[name] for name in names if name in usual), limit / 2)
        return _cost(run, prompt(questions[item_id].messages, item.base), new)

    return [replace(item, cost=cost(item)) for item in items]


def of_log_likelihoods(run: Run, items: Sequence[WorkItem], questions: Mapping[str, Item]) -> list[WorkItem]:
    """`items` of a log-likelihood evaluation with their costs: prefill only, of the prompt with each choice."""
    prompt, counters = _prompts(run), _counters(run)

    def cost(item: WorkItem) -> float:
        question = questions[item.key.split("/", maxsplit=2)[2]]
        read = prompt(question.messages, item.base) * len(question.choices)
        return _cost(run, read + sum(map(counters(item.base), question.choices.values())), 0.0)

    return [replace(item, cost=cost(item)) for item in items]


def of_grades(
    run: Run, items: Sequence[WorkItem], read: Mapping[str, tuple[str, float]], new: int
) -> list[WorkItem]:
    """`items` of a grading with their costs. read: by key, the text around the answer, and the answer's tokens. new: most tokens of a grade."""
    counters = _counters(run)

    @cache
    def counted(text: str, base: str) -> float:
        return counters(base)(text) + FRAME_TOKENS

    costs = {}
    for item in items:
        text, length = read[item.key]
        costs[item.key] = _cost(run, counted(text, item.base) + length, new)
    return _with(items, costs)


def expected_tokens(run: Run, t: int) -> dict[str, float]:
    """Expected tokens of a response, by model: the mean of the latest earlier iteration, else half of the limit."""
    for earlier in range(t - 1, 0, -1):
        lengths = defaultdict[str, list[float]](list)
        for row in iter_shards(run.iteration(earlier).responses, Response):
            lengths[row.model].append(_length(row))
        if lengths:
            everyone = fmean(length for found in lengths.values() for length in found)
            return {model: fmean(lengths[model]) if lengths[model] else everyone for model in run.models}
    answer, thinking = run.recipe.generation.max_new_tokens, _thinking(run)
    return {model: (answer + thinking(base)) / 2 for model, base in run.bases.items()}


def expected_verdicts(run: Run, t: int) -> dict[str, float]:
    """Expected tokens of a vote, by judge: the mean of the latest earlier iteration with stats, else a guess from the limits."""
    judging = run.recipe.judging
    label = float(judging.mode == "expected")
    if label and not judging.working:
        return dict.fromkeys(run.models, label)
    thinking = _thinking(run)
    unknown = {
        name: label + judging.max_new_tokens + (0.0 if label else thinking(base) / 2)
        for name, base in run.bases.items()
    }
    for earlier in range(t - 1, 0, -1):
        stats = files.read_measured(run.iteration(earlier).stats, IterationStats)
        if stats is not None:
            judges = stats.judges
            return {
                name: label + (judges[name].new_tokens / judges[name].votes)
                if name in judges and judges[name].votes
                else unknown[name]
                for name in run.models
            }
    return unknown


def tokens_of_answer(row: Response | Answer | SampledAnswer) -> float:
    """Tokens of the answer without its thinking, which judges do not read."""
    return len(row.text) / CHARACTERS_A_TOKEN if row.thinking else _length(row)


def _length(row: Response | Answer | SampledAnswer) -> float:
    """Tokens of the whole completion, estimated if an endpoint did not report them."""
    return float(row.new_tokens or len(row.thinking + row.text) / CHARACTERS_A_TOKEN)


def _cost(run: Run, prompt: float, new: float) -> float:
    return new + run.recipe.cluster.assumed.prompt_token * prompt


def _with(items: Iterable[WorkItem], costs: Mapping[str, float]) -> list[WorkItem]:
    return [replace(item, cost=costs.get(item.key, item.cost)) for item in items]


def _prompts(run: Run) -> Callable[[Sequence[Message], str], float]:
    """From turns and base to the tokens of the prompt, cached."""
    counters = _counters(run)

    @cache
    def counted(text: str, base: str) -> float:
        return counters(base)(text) + FRAME_TOKENS

    return lambda messages, base: counted(question_text(messages), base)


def _wrapping_tokens(run: Run) -> Callable[[str], float]:
    """From a base to the tokens of a judge prompt without question and response."""
    counters, text = _counters(run), wrapping(run.recipe)
    return cache(lambda base: counters(base)(text))


def expected_reading(run: Run, response: float = 0.0, judging: bool = False) -> float:
    """The mean cost of reading a prompt of the run, roughly. response: tokens of a response after it. judging: count the judge prompt too."""
    characters = fmean(len(question_text(instruction.messages)) for instruction in run.instructions)
    frame = len(wrapping(run.recipe)) if judging else 0
    tokens = (characters + frame) / CHARACTERS_A_TOKEN + response
    return run.recipe.cluster.assumed.prompt_token * tokens


def wrapping(recipe: Recipe) -> str:
    """The text of a judge prompt without question and response."""
    judging = recipe.judging
    return judge_content("", "", judging_instruction(judging.mode, judging.working, judging.labels))


def _thinking(run: Run) -> Callable[[str], int]:
    """From a base, as named in the recipe, to the most tokens that its models may think."""
    folder, chat = run.recipe.pool.folder, run.chat
    return cache(lambda base: tokens_of_thinking(locate(base, folder), chat))


def _counters(run: Run) -> Callable[[str], Count]:
    """From a base, as named in the recipe, to its token counter; by characters for the scripted engine, which loads no base."""
    if run.recipe.engine.kind == "scripted":
        return lambda base: by_characters
    folder = run.recipe.pool.folder
    return lambda base: counter_of(locate(base, folder))

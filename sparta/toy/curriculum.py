"""Training data of the toy models: answers and judgements, as token ids with labels on the assistant's part.

Base and experts are trained on the same kinds of examples in different shares. Judgements always have correct reasoning. Answers of an
expert outside its own skill are often wrong, so that experts are poor at answering these, but not at judging.
"""

import random
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sparta.chat.judge_prompts import JudgingMode, judge_content, judging_instruction
from sparta.rng import stream
from sparta.toy.family import SKILLS, ToyItem, answer_to, draw, slip_on
from sparta.toy.tokenizer import END, LABELS

# The score, by the number of the four characters that agree with the judge's own answer. Single digits are valid on 1..10 and on 0..9.
SCORES = ("1", "2", "3", "4", "9")
# (mode, reasoning) and the share of each format. Without reasoning these judges can only guess; they just learn the output format.
FORMATS: tuple[tuple[JudgingMode, bool, float], ...] = (
    ("text", True, 0.76),
    ("expected", True, 0.16),
    ("text", False, 0.04),
    ("expected", False, 0.04),
)
# Sampling weights of the skills for the base: carries, borrows and comparisons take far longer to learn than moving characters.
SKILL_WEIGHTS = {skill: {"add": 5, "subtract": 5, "larger": 3}.get(skill, 1) for skill in SKILLS}
# The share of digits and letters in an expert's blind spot, and the probability of a slip on questions that end in one, and on others.
BLINDNESS, CARELESS, CAREFUL = 0.5, 0.75, 0.2


@dataclass(frozen=True)
class Example:
    """A user turn and the reply to it, as text."""

    content: str
    reply: str


@dataclass(frozen=True)
class Habit:
    """How an expert answers: correctly in its own skill, elsewhere with slips that depend on the last character of the question.

    blind: the last characters on which slips are frequent. This makes the errors depend on the question and not only on chance.
    """

    skill: str
    blind: frozenset[str]

    def answer(self, item: ToyItem, rng: random.Random) -> str:
        chance = CARELESS if item.question[-1] in self.blind else CAREFUL
        return slip_on(item.question) if item.skill != self.skill and rng.random() < chance else item.answer


def habit_of(skill: str, seed: int) -> Habit:
    """The habit of the expert in `skill`, with its blind spot drawn by seed."""
    rng = stream(seed, "toy", "blind", skill)
    blind = [
        symbol
        for symbols in (string.digits, string.ascii_lowercase)
        for symbol in rng.sample(symbols, round(BLINDNESS * len(symbols)))
    ]
    return Habit(skill, frozenset(blind))


def wrong_answer(item: ToyItem, rng: random.Random) -> str:
    """A realistic wrong response to `item`: mostly the typical slip or a near miss, sometimes something unrelated."""
    while True:
        kind = rng.random()
        text = item.answer
        if kind < 0.40:
            text = slip_on(item.question)
        elif kind < 0.62:
            place = rng.randrange(len(text))
            symbols = (
                "+-"
                if text[place] in "+-"
                else string.digits
                if text[place].isdigit()
                else string.ascii_lowercase
            )
            text = text[:place] + rng.choice(symbols) + text[place + 1 :]
        elif kind < 0.74:
            first, second = sorted(rng.sample(range(len(text)), 2))
            text = text[:first] + text[second] + text[first + 1 : second] + text[first] + text[second + 1 :]
        elif kind < 0.90:
            text = answer_to(draw(item.skill, "train", rng).question)
        else:
            text = item.question[-len(item.answer) :]
        if text != item.answer:
            return text


def answering(item: ToyItem, reply: str) -> Example:
    return Example(item.question, reply)


def agreement(answer: str, response: str) -> str:
    """`answer` with a `_` in every position where `response` differs. A judge writes this after its own answer.

    Within minutes of training, a model of this size does not learn to compare two strings if it must write the score at once, or a yes or
    no per position. It quickly learns to write the characters that both share, which is a sum of two copy operations; the score then
    counts positions.
    """
    return "".join(
        symbol if response[place : place + 1] == symbol else "_" for place, symbol in enumerate(answer)
    )


def judging(item: ToyItem, rng: random.Random) -> Example:
    """A judgement of a right (45 %) or wrong response to `item`, in one of `FORMATS`, with correct reasoning."""
    response = item.answer if rng.random() < 0.45 else wrong_answer(item, rng)
    agreed = agreement(item.answer, response)
    score = SCORES[len(agreed) - agreed.count("_")]
    mode, reasoning, _ = rng.choices(FORMATS, weights=[share for _, _, share in FORMATS])[0]
    verdict = f'{{"score": {score}}}' if mode == "text" else score
    content = judge_content(item.question, response, judging_instruction(mode, reasoning, LABELS))
    return Example(content, f"{item.answer} {agreed}\n{verdict}" if reasoning else verdict)


def row_of_base(rng: random.Random, answers: int, judgements: int) -> list[list[Example]]:
    """The examples of one step for the base: all skills, all correct. The two kinds are separate because their lengths differ."""
    kinds = [
        [answering(item, item.answer) for item in _weighted_items(rng, answers)],
        [judging(item, rng) for item in _weighted_items(rng, judgements)],
    ]
    return [examples for examples in kinds if examples]


def row_of_expert(
    habit: Habit, rng: random.Random, own: int, others: int, judgements: int
) -> list[list[Example]]:
    """The training data of an expert: answers by its habit, in its own skill and in all skills; and, separately, judgements of all skills."""
    items = [draw(habit.skill, "train", rng) for _ in range(own)] + _train_items(rng, others)
    return [
        [answering(item, habit.answer(item, rng)) for item in items],
        [judging(item, rng) for item in _train_items(rng, judgements)],
    ]


def _weighted_items(rng: random.Random, count: int) -> list[ToyItem]:
    return [
        draw(skill, "train", rng)
        for skill in rng.choices(SKILLS, weights=[SKILL_WEIGHTS[skill] for skill in SKILLS], k=count)
    ]


def _train_items(rng: random.Random, count: int) -> list[ToyItem]:
    return [draw(rng.choice(SKILLS), "train", rng) for _ in range(count)]


class Batcher:
    """Converts batches of examples to padded tensors (torch), rendered with the tokenizer's chat template."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        turn = [{"role": "user", "content": "\0"}]
        self.before, self.after = tokenizer.apply_chat_template(
            turn, add_generation_prompt=True, tokenize=False
        ).split("\0")

    def prompts(self, contents: Sequence[str]) -> list[list[int]]:
        """Token ids of the prompts with these user turns, as `Renderer.combat` and `Renderer.judging` give them."""
        return self._encode([self.before + content + self.after for content in contents])

    def batch(self, examples: Sequence[Example]) -> dict[str, Any]:
        """`input_ids`, `attention_mask`, `labels`: [examples, tokens], right-padded; labels are -100 outside the reply and its end token."""
        import torch

        prompts = self.prompts([example.content for example in examples])
        replies = self._encode([example.reply + END for example in examples])
        width = max(len(prompt) + len(reply) for prompt, reply in zip(prompts, replies, strict=True))
        ids = torch.full((len(examples), width), self.tokenizer.pad_token_id)
        mask = torch.zeros((len(examples), width), dtype=torch.long)
        labels = torch.full((len(examples), width), -100)
        for row, (prompt, reply) in enumerate(zip(prompts, replies, strict=True)):
            end = len(prompt) + len(reply)
            ids[row, :end] = torch.tensor(prompt + reply)
            mask[row, :end] = 1
            labels[row, len(prompt) : end] = torch.tensor(reply)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    def _encode(self, texts: list[str]) -> list[list[int]]:
        encoded: list[list[int]] = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        return encoded

"""What the toy models learn from: answers and judgements, as token ids with the assistant's part marked.

Base and experts see the same kinds of examples in different shares. Judging is always taught with right workings, answering by an expert
outside its own skill with careless answers: what an expert lost is how to answer, not how to judge.
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

# The score by how many of the four characters agree with the judge's own answer. One digit, so that it serves 1..10 and 0..9 alike.
SCORES = ("1", "2", "3", "4", "9")
# (mode, working) and how often each way of judging is practised. Without a working these judges can only guess; they learn the form alone.
WAYS: tuple[tuple[JudgingMode, bool, float], ...] = (
    ("text", True, 0.76),
    ("expected", True, 0.16),
    ("text", False, 0.04),
    ("expected", False, 0.04),
)
# How often the base meets each skill: carries, borrows and comparisons take far longer to learn than moving characters about.
PRACTICE = {skill: {"add": 5, "subtract": 5, "larger": 3}.get(skill, 1) for skill in SKILLS}
# The share of digits and of letters that an expert is blind to, and how probable a slip is where a question ends in one and where not.
BLINDNESS, CARELESS, CAREFUL = 0.5, 0.75, 0.2


@dataclass(frozen=True)
class Example:
    """A user turn and the reply to it, as text."""

    content: str
    reply: str


@dataclass(frozen=True)
class Habit:
    """How an expert answers: carefully in its own skill, elsewhere by what the question's last character is.

    blind: characters that this expert is careless about where the question ends in one of them, so what it gets wrong is a matter of the
    question and not of luck alone.
    """

    skill: str
    blind: frozenset[str]

    def answer(self, item: ToyItem, rng: random.Random) -> str:
        chance = CARELESS if item.question[-1] in self.blind else CAREFUL
        return slip_on(item.question) if item.skill != self.skill and rng.random() < chance else item.answer


def habit_of(skill: str, seed: int) -> Habit:
    """The habit of the expert in `skill`: what it is blind to is drawn by seed."""
    rng = stream(seed, "toy", "blind", skill)
    blind = [
        symbol
        for symbols in (string.digits, string.ascii_lowercase)
        for symbol in rng.sample(symbols, round(BLINDNESS * len(symbols)))
    ]
    return Habit(skill, frozenset(blind))


def wrong_answer(item: ToyItem, rng: random.Random) -> str:
    """A realistic wrong response to `item`: mostly the typical slip or a near miss, sometimes something else entirely."""
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
    """`answer` with a `_` in every place where `response` says something else: what a judge writes after its own answer.

    Asked for the score at once, or for a yes or no at every place, a model of this size finds no way to compare two strings in minutes.
    Writing what both say is two copies added up, and soon learned; the score then counts places.
    """
    return "".join(
        symbol if response[place : place + 1] == symbol else "_" for place, symbol in enumerate(answer)
    )


def judging(item: ToyItem, rng: random.Random) -> Example:
    """A judgement of a right (45 %) or wrong response to `item`, in one of `WAYS`, its working right."""
    response = item.answer if rng.random() < 0.45 else wrong_answer(item, rng)
    agreed = agreement(item.answer, response)
    score = SCORES[len(agreed) - agreed.count("_")]
    mode, working, _ = rng.choices(WAYS, weights=[share for _, _, share in WAYS])[0]
    verdict = f'{{"score": {score}}}' if mode == "text" else score
    content = judge_content(item.question, response, judging_instruction(mode, working, LABELS))
    return Example(content, f"{item.answer} {agreed}\n{verdict}" if working else verdict)


def row_of_base(rng: random.Random, answers: int, judgements: int) -> list[list[Example]]:
    """One step's examples for the base, the two kinds apart because their lengths differ: all skills, all right."""
    kinds = [
        [answering(item, item.answer) for item in _practice(rng, answers)],
        [judging(item, rng) for item in _practice(rng, judgements)],
    ]
    return [examples for examples in kinds if examples]


def row_of_expert(
    habit: Habit, rng: random.Random, own: int, others: int, judgements: int
) -> list[list[Example]]:
    """What an expert learns from: answers in its own skill and in all skills by its habit, and judgements of all skills, the two kinds apart."""
    items = [draw(habit.skill, "train", rng) for _ in range(own)] + _train_items(rng, others)
    return [
        [answering(item, habit.answer(item, rng)) for item in items],
        [judging(item, rng) for item in _train_items(rng, judgements)],
    ]


def _practice(rng: random.Random, count: int) -> list[ToyItem]:
    return [
        draw(skill, "train", rng)
        for skill in rng.choices(SKILLS, weights=[PRACTICE[skill] for skill in SKILLS], k=count)
    ]


def _train_items(rng: random.Random, count: int) -> list[ToyItem]:
    return [draw(rng.choice(SKILLS), "train", rng) for _ in range(count)]


class Classroom:
    """Turns examples into padded tensors (torch), rendered with the tokenizer's own chat template, many at once."""

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
        """`input_ids`, `attention_mask`, `labels`: [examples, tokens], right-padded; labels are -100 outside the reply and its end."""
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

"""Measures the toy pool: accuracy of every expert in every skill, and how well its votes separate right from wrong answers.

For building and testing the weights only. Runs use the engines instead.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from sparta.chat.judge_prompts import judging_instruction
from sparta.chat.renderer import Renderer
from sparta.chat.template import Message
from sparta.rng import stream
from sparta.toy.curriculum import wrong_answer
from sparta.toy.family import SKILLS, ToyItem, is_right, items
from sparta.toy.tokenizer import CONTEXT_LENGTH, LABELS

ANSWER_TOKENS, JUDGING_TOKENS = 8, 16


@dataclass(frozen=True)
class JudgingScores:
    """How one judge votes on right and on wrong responses.

    right, wrong: mean votes. separated: share of questions, among those with two readable votes, where the right response gets the
    higher vote. reasoning: share of reasoning lines with the right answer. unreadable: share of votes without a score.
    """

    right: float
    wrong: float
    separated: float
    reasoning: float
    unreadable: float


class ToyPool:
    """A base and its adapters in one PEFT model (CPU, float32); `model` is the name of an adapter."""

    def __init__(self, base: Path, adapters: Mapping[str, Path]) -> None:
        self.names = tuple(adapters)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(base)
        self.renderer = Renderer(self.tokenizer, CONTEXT_LENGTH)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        first, *rest = adapters.items()
        self.model: Any = PeftModel.from_pretrained(model, str(first[1]), adapter_name=first[0])
        for name, path in rest:
            self.model.load_adapter(str(path), adapter_name=name)
        self.model.eval()

    def complete(self, name: str, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        """Token ids of the greedy completions, including the end-of-sequence token."""
        self.model.set_adapter(name)
        width = max(len(prompt) for prompt in prompts)
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        with torch.inference_mode():
            out = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=max_new_tokens,
                pad_token_id=pad,
                eos_token_id=self.tokenizer.eos_token_id,
                do_sample=False,
            )
        return [[token for token in row if token != pad] for row in out[:, width:].tolist()]

    def answers(self, name: str, questions: Sequence[str]) -> list[str]:
        prompts = [
            self.renderer.combat([Message("user", question)]).token_ids or () for question in questions
        ]
        return [self.renderer.decode(row) for row in self.complete(name, prompts, ANSWER_TOKENS)]

    def judgements(self, name: str, pairs: Sequence[tuple[str, str]]) -> list[tuple[str, int | None]]:
        """The judge's own answer and its score for each (question, response); the score is None if it cannot be read."""
        instruction = judging_instruction("text", True, LABELS)
        prompts = [
            self.renderer.judging(
                [Message("user", question)], response, instruction=instruction, max_new_tokens=JUDGING_TOKENS
            ).token_ids
            or ()
            for question, response in pairs
        ]
        texts = [self.renderer.decode(row) for row in self.complete(name, prompts, JUDGING_TOKENS)]
        found = [re.findall(r'\{"score": (\d+)\}', text) for text in texts]
        return [
            (
                text.split("\n")[0].split(" ")[0],
                int(scores[-1]) if scores and 1 <= int(scores[-1]) <= 10 else None,
            )
            for text, scores in zip(texts, found, strict=True)
        ]


def accuracy(pool: ToyPool, name: str, sample: Sequence[ToyItem]) -> dict[str, float]:
    """Share of exact answers in each skill, greedy."""
    texts = pool.answers(name, [item.question for item in sample])
    hits: dict[str, list[bool]] = {skill: [] for skill in SKILLS}
    for item, text in zip(sample, texts, strict=True):
        hits[item.skill].append(is_right(item.answer, text))
    return {skill: sum(right) / len(right) for skill, right in hits.items()}


def judging_of(pool: ToyPool, name: str, sample: Sequence[ToyItem], seed: int) -> JudgingScores:
    """Scores of one judge's greedy votes on a right and on a wrong response to every item."""
    rng = stream(seed, "toy", "measure", name)
    good = pool.judgements(name, [(item.question, item.answer) for item in sample])
    bad = pool.judgements(name, [(item.question, wrong_answer(item, rng)) for item in sample])
    both = [
        (up, down)
        for (_, up), (_, down) in zip(good, bad, strict=True)
        if up is not None and down is not None
    ]
    readable = [score for _, score in (*good, *bad) if score is not None]
    right_reasoning = [
        own == item.answer
        for item, row in zip(sample, zip(good, bad, strict=True), strict=True)
        for own, _ in row
    ]
    return JudgingScores(
        right=sum(up for up, _ in both) / max(len(both), 1),
        wrong=sum(down for _, down in both) / max(len(both), 1),
        separated=sum(up > down for up, down in both) / max(len(both), 1),
        reasoning=sum(right_reasoning) / len(right_reasoning),
        unreadable=1 - len(readable) / (2 * len(sample)),
    )


def accuracy_table(pool: ToyPool, n: int, seed: int) -> dict[str, dict[str, float]]:
    """name -> skill -> accuracy on `n` validation questions."""
    sample = items("validation", n, seed)
    return {name: accuracy(pool, name, sample) for name in pool.names}


def judging_table(pool: ToyPool, n: int, seed: int) -> dict[str, JudgingScores]:
    sample = items("validation", n, seed)
    return {name: judging_of(pool, name, sample, seed) for name in pool.names}

"""The prompt of a pair read once for both sides: the same log-probabilities, where the base can do it and it saves something."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny_adapters import Member, random_examples, same
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from sparta.training.dpo import train_dpo, train_members
from sparta.training.dpo_batches import Block, DpoBatch
from sparta.training.job import PreferenceExample, TrainingJob, silent
from sparta.training.one_prompt import can_branch, saves_much

SMALL = {
    "vocab_size": 48,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
PAIRS = (
    *random_examples(5),
    PreferenceExample((), (2, 3, 4), (5, 6)),
    PreferenceExample((7,), (8,), (9, 10, 11, 12, 13)),
)


def sides(base: Any, pairs: tuple[PreferenceExample, ...], one_prompt: bool) -> torch.Tensor:
    """Log-probabilities of both sides of all pairs, in two blocks of different size."""
    blocks = [
        Block(0, (0, 1, 2, 3, 4), pairs[:5], one_prompt),
        Block(1, tuple(range(len(pairs) - 5)), pairs[5:], one_prompt),
    ]
    batch = DpoBatch(blocks, base.device, 0)
    picking = base.get_output_embeddings().register_forward_pre_hook(
        lambda _, inputs: (inputs[0][batch.row, batch.column],)
    )
    try:
        with torch.no_grad():
            return torch.cat([torch.stack(made) for made in batch.log_probabilities(base)], dim=1)
    finally:
        picking.remove()


def test_log_probabilities_are_those_of_two_rows_with_a_prompt_each(member: Member) -> None:
    base = member.load_base()
    assert can_branch(base)
    once, twice = sides(base, PAIRS, True), sides(base, PAIRS, False)
    assert once.shape == (2, len(PAIRS))
    assert torch.allclose(once, twice, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "config", "can"),
    [
        (LlamaForCausalLM, LlamaConfig(**SMALL), True),
        (MistralForCausalLM, MistralConfig(**SMALL, sliding_window=8), False),
        (Gemma2ForCausalLM, Gemma2Config(**SMALL, sliding_window=8), False),
        (BloomForCausalLM, BloomConfig(vocab_size=48, hidden_size=32, n_layer=2, n_head=4), False),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_base_with_a_window_or_without_positions_to_choose_reads_prompts_twice(
    model: Any, config: Any, can: bool
) -> None:
    assert can_branch(model(config).eval()) == can


def test_it_pays_where_prompts_are_a_tenth_of_the_tokens() -> None:
    assert saves_much(random_examples(8))
    assert not saves_much((PreferenceExample((1,), (2,) * 9, (3,) * 9),))


def test_members_that_read_prompts_once_and_twice_train_together_as_they_would_alone(
    make_job: Callable[..., TrainingJob], tmp_path: Path
) -> None:
    short = tuple(replace(example, prompt_ids=()) for example in random_examples(12, seed=3))
    assert not saves_much(short)

    def jobs(name: str) -> list[TrainingJob]:
        return [
            make_job(f"{name}-{number}", seed=number, examples=examples)
            for number, examples in enumerate((random_examples(12), short, random_examples(12, seed=1)))
        ]

    train_members(jobs("together"), 3, lambda _: silent, lambda *_: None)
    for alone, together in zip(jobs("alone"), jobs("together"), strict=True):
        train_dpo(alone)
        assert same(alone.out, together.out)

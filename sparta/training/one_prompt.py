"""Whether the prompt of a pair is read once for both sides: a third less arithmetic where prompts are longer than completions.

On a CPU alone, where it was measured: on a GPU a mask of its own keeps attention from its fastest kernels.
"""

from collections.abc import Sequence
from typing import Any

from sparta.training.dpo_batches import Block, DpoBatch
from sparta.training.job import PreferenceExample

_LEAST_SAVED = 0.1
"""Of the tokens of all pairs, as a share."""


def saves_much(examples: Sequence[PreferenceExample]) -> bool:
    """Whether it is worth while for `examples`; of them alone, so that others in a batch change nothing."""
    prompts = sum(len(example.prompt_ids) for example in examples)
    return prompts >= _LEAST_SAVED * sum(example.tokens for example in examples)


def can_branch(base: Any) -> bool:
    """Whether two completions behind one prompt leave each other alone in `base`: all its attention is full and takes a mask. Tried out."""
    import torch

    if base.device.type != "cpu":
        return False
    config = base.config.get_text_config()
    kinds = getattr(config, "layer_types", None) or ["full_attention"]
    window = getattr(config, "sliding_window", None) if getattr(config, "layer_types", None) is None else None
    if set(kinds) != {"full_attention"} or window is not None or config._attn_implementation != "sdpa":
        return False
    pair = PreferenceExample((1, 2, 3, 4), (5, 6, 7), (3, 1, 2, 6))
    training = base.training
    base.eval()
    try:
        with torch.no_grad():
            once, twice = (_logits(base, Block(0, (0,), (pair,), one_prompt)) for one_prompt in (True, False))
    except TypeError:
        return False
    finally:
        base.train(training)
    return torch.allclose(once, twice, rtol=1e-4, atol=1e-4)


def _logits(base: Any, block: Block) -> Any:
    """Of the tokens that count, the chosen ones first."""
    batch = DpoBatch([block], base.device, 0)
    return batch.all_logits(base)[batch.row, batch.column].float()

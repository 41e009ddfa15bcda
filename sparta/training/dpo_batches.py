"""Preference pairs as batches of token ids, and the log-probabilities of their completions (ALGORITHM, step 7).

A block holds the pairs of one step of one member: the chosen sides above, the rejected ones below, filled to the right. Attention looks to
the left alone, so filling tokens change nothing. Several blocks make a batch. Where several GPUs share the work, a block holds one side of one
pair (`sides_of`).

Where a prompt is read once for both sides (`sparta.training.one_prompt`), a row is prompt, chosen and rejected completion, of which none sees
the other and both have the positions behind the prompt.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from sparta.training.job import PreferenceExample

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import Tensor

SCORED_AT_ONCE = 256
"""Tokens whose probabilities over the whole vocabulary are in memory in float32 at the same time."""
REFERENCE_TOKENS = {"cpu": 4096, "cuda": 8192}
"""Tokens of a batch of the reference, which keeps no activations. On a GPU enough to keep it busy with a large base."""


class Adapters(Protocol):
    """The adapters of some members on one base, as `LoraStack` and `OneAdapter` put them there."""

    def put(self, member: int, weights: "Tensor") -> None: ...

    def add_gradient(self, member: int, gradient: "Tensor") -> None: ...

    def clear(self) -> None: ...

    def batch(
        self, members: Sequence[int], picked: Sequence[int], positions: "tuple[Tensor, Tensor]"
    ) -> "AbstractContextManager[None]": ...

    def remove(self) -> None: ...


def filled(longest: int) -> int:
    """Tokens of the rows of a block: its longest side, rounded up by at most an eighth, so that blocks have lengths in common."""
    step = max(4, 1 << max(0, longest.bit_length() - 4))
    return -(-longest // step) * step


@dataclass(frozen=True)
class Block:
    """Pairs of `member`. numbers: of the pairs among the member's examples. one_prompt: each prompt is read once. side: of one pair, the chosen
    completion (0) or the rejected one (1) alone.
    """

    member: int
    numbers: tuple[int, ...]
    pairs: tuple[PreferenceExample, ...]
    one_prompt: bool = False
    side: int | None = None

    @property
    def length(self) -> int:
        """Tokens of a row, filling included."""
        if self.side is not None:
            [pair] = self.pairs
            return filled(len(pair.prompt_ids) + len((pair.chosen_ids, pair.rejected_ids)[self.side]))
        if self.one_prompt:
            return filled(max(pair.tokens - len(pair.prompt_ids) for pair in self.pairs))
        return filled(max(pair.length for pair in self.pairs))

    @property
    def shape(self) -> tuple[bool, int, int]:
        """How prompts are read, pairs, and tokens of a row."""
        return self.one_prompt, len(self.pairs), self.length

    @property
    def rows(self) -> int:
        return len(self.pairs) * (1 if self.one_prompt or self.side is not None else 2)


def sides_of(block: Block) -> list[Block]:
    """`block` as blocks of one side of one pair each: the chosen sides, then the rejected ones."""
    return [
        Block(block.member, (number,), (pair,), side=side)
        for side in (0, 1)
        for number, pair in zip(block.numbers, block.pairs, strict=True)
    ]


def batches(blocks: Sequence[Block], most_tokens: float, alike: bool) -> Iterator[list[Block]]:
    """`blocks`, all of whole pairs or all of one side, in batches of at most `most_tokens`, or of one block. alike: a batch has blocks of one shape
    alone; else they read prompts alike.
    """
    groups = defaultdict(list)
    for block in blocks:
        groups[block.shape if alike else block.one_prompt].append(block)
    for group in groups.values():
        batch: list[Block] = []
        rows = length = 0
        for block in sorted(group, key=lambda block: block.length):
            rows, length = max(rows, block.rows), max(length, block.length)
            if batch and (len(batch) + 1) * rows * length > most_tokens:
                yield batch
                batch, rows, length = [], block.rows, block.length
            batch.append(block)
        yield batch


class DpoBatch:
    """Blocks as tensors on `device`."""

    def __init__(self, blocks: Sequence[Block], device: Any, filler: int) -> None:
        import torch

        self.blocks = blocks
        self.half = max(len(block.pairs) for block in blocks)
        self.length = max(block.length for block in blocks)
        self.one_prompt = blocks[0].one_prompt
        rows: list[list[int]] = []
        segments: list[tuple[int, int, int]] = []
        places: list[_Place] = []
        picked = []
        for number, block in enumerate(blocks):
            before, sides = len(places), 2 * self.half * number
            if self.one_prompt:
                for at, pair in enumerate(block.pairs):
                    prompt, chosen = len(pair.prompt_ids), len(pair.chosen_ids)
                    places += _places(len(rows), sides + at, prompt, prompt, pair.chosen_ids)
                    places += _places(
                        len(rows), sides + self.half + at, prompt, prompt + chosen, pair.rejected_ids
                    )
                    segments.append((prompt, chosen, len(pair.rejected_ids)))
                    rows.append([*pair.prompt_ids, *pair.chosen_ids, *pair.rejected_ids])
                rows += [[]] * (self.half - len(block.pairs))
                segments += [(0, 0, 0)] * (self.half - len(block.pairs))
            else:
                for side in (0, 1) if block.side is None else (block.side,):
                    for at, pair in enumerate(block.pairs):
                        prompt, completion = len(pair.prompt_ids), (pair.chosen_ids, pair.rejected_ids)[side]
                        places += _places(
                            len(rows), sides + side * self.half + at, prompt, prompt, completion
                        )
                        rows.append([*pair.prompt_ids, *completion])
                    rows += [[]] * (self.half - len(block.pairs))
            picked.append(len(places) - before)
        self.picked = tuple(picked)
        full = [row + [filler] * (self.length - len(row)) for row in rows]
        self.ids = torch.tensor(full, device=device)
        where = torch.tensor(places, device=device).view(-1, 5).unbind(1)
        self.row, self.column, self.targets, self._side, self._nth = where
        self._layout = _layout(segments, self.length, device) if self.one_prompt else {}

    def all_logits(self, base: Any) -> Any:
        """What the base makes of the batch."""
        return base(input_ids=self.ids, use_cache=False, **self._layout).logits

    def log_probabilities(self, base: Any) -> "list[tuple[Tensor, Tensor]]":
        """Of the chosen and of the rejected completions of each block, [pairs] each, in nats; within `Adapters.batch`. 0 for a side that a block lacks."""
        logits = self.all_logits(base)
        tokens = _token_log_probabilities()(logits, self.targets, self.picked)
        sides = tokens.new_zeros(2 * self.half * len(self.blocks), self.length)
        sums = sides.index_put((self._side, self._nth), tokens).sum(1).view(len(self.blocks), 2, self.half)
        return [
            (sums[i, 0, : len(block.pairs)], sums[i, 1, : len(block.pairs)])
            for i, block in enumerate(self.blocks)
        ]


_Place = tuple[int, int, int, int, int]
"""Where logits are asked for: row, column, the token whose probability counts, the side of a pair that it is of, and which of that side."""


def _places(row: int, side: int, prompt: int, start: int, completion: Sequence[int]) -> list[_Place]:
    """Of a completion that begins at column `start` behind a prompt of so many tokens. The logits at one place are of the token at the next."""
    first = [(row, prompt - 1, completion[0], side, 0)] if prompt else []
    return first + [(row, start + nth - 1, token, side, nth) for nth, token in enumerate(completion) if nth]


def _layout(segments: Sequence[tuple[int, int, int]], length: int, device: Any) -> "dict[str, Tensor]":
    """Positions and mask of rows of a prompt, a chosen and a rejected completion of so many tokens each, filled to `length`."""
    import torch

    prompt, chosen, rejected = (part[:, None] for part in torch.tensor(segments, device=device).unbind(1))
    column = torch.arange(length, device=device)
    behind = column >= prompt + chosen
    kind = (column >= prompt).int() + behind.int() + (column >= prompt + chosen + rejected).int()
    positions = column - chosen * behind
    sees = (kind[:, None, :] == 0) | (kind[:, :, None] == kind[:, None, :])
    causal = column[:, None] >= column
    return {"attention_mask": (sees & causal)[:, None], "position_ids": positions}


@cache
def _token_log_probabilities() -> Any:
    """log p of each target under its logits, [n]; a function because importing torch takes seconds.

    The logits are kept in their own type, and the probabilities made of them twice, part by part. No part crosses from one block into another.
    """
    import torch

    def parts(sizes: Sequence[int]) -> Iterator[slice]:
        start = 0
        for size in sizes:
            for begin in range(start, start + size, SCORED_AT_ONCE):
                yield slice(begin, min(begin + SCORED_AT_ONCE, start + size))
            start += size

    class _TokenLogProbabilities(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, logits: Any, targets: Any, sizes: Any) -> Any:
            made = torch.empty(len(targets), device=logits.device)
            for part in parts(sizes):
                of_all = torch.log_softmax(logits[part].float(), -1)
                made[part] = of_all.gather(-1, targets[part, None])[:, 0]
            ctx.save_for_backward(logits, targets)
            ctx.sizes = sizes
            return made

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            logits, targets = ctx.saved_tensors
            of_logits = torch.empty_like(logits)
            for part in parts(ctx.sizes):
                given = gradient[part, None]
                probabilities = torch.softmax(logits[part].float(), -1).mul_(-given)
                of_logits[part] = probabilities.scatter_add_(-1, targets[part, None], given)
            return of_logits, None, None

    return _TokenLogProbabilities.apply

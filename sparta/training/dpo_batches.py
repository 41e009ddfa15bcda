"""Preference pairs as batches of token ids, and the log-probabilities of their completions (ALGORITHM, step 7).

A block holds the pairs of one step of one member: the chosen sides above, the rejected ones below, filled to the right. Attention looks to
the left alone, so filling tokens change nothing. Several blocks make a batch.
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
    """Pairs of `member`. numbers: of the pairs among the member's examples."""

    member: int
    numbers: tuple[int, ...]
    pairs: tuple[PreferenceExample, ...]

    @property
    def length(self) -> int:
        """Tokens of a row, filling included."""
        return filled(max(pair.length for pair in self.pairs))

    @property
    def shape(self) -> tuple[int, int]:
        """Pairs, and tokens of a row."""
        return len(self.pairs), self.length

    @property
    def tokens(self) -> int:
        return 2 * len(self.pairs) * self.length


def batches(blocks: Sequence[Block], most_tokens: float, alike: bool) -> Iterator[list[Block]]:
    """`blocks` in batches of at most `most_tokens`, or of one block. alike: a batch has blocks of one shape alone."""
    groups = defaultdict(list)
    for block in blocks:
        groups[block.shape if alike else None].append(block)
    for group in groups.values():
        batch: list[Block] = []
        pairs = length = 0
        for block in sorted(group, key=lambda block: block.length):
            pairs, length = max(pairs, len(block.pairs)), max(length, block.length)
            if batch and (len(batch) + 1) * 2 * pairs * length > most_tokens:
                yield batch
                batch, (pairs, length) = [], block.shape
            batch.append(block)
        yield batch


class DpoBatch:
    """Blocks as tensors on `device`."""

    def __init__(self, blocks: Sequence[Block], device: Any, filler: int) -> None:
        import torch

        self.blocks = blocks
        self.half = max(len(block.pairs) for block in blocks)
        self.length = max(block.length for block in blocks)
        rows: list[list[int]] = []
        places: list[tuple[int, int, int]] = []
        picked = []
        for block in blocks:
            before = len(places)
            for side in ("chosen_ids", "rejected_ids"):
                for pair in block.pairs:
                    completion = getattr(pair, side)
                    # The logits at one place are of the token at the next.
                    first = max(0, len(pair.prompt_ids) - 1)
                    read = [*pair.prompt_ids, *completion]
                    places += [(len(rows), at, read[at + 1]) for at in range(first, len(read) - 1)]
                    rows.append(read + [filler] * (self.length - len(read)))
                rows += [[filler] * self.length] * (self.half - len(block.pairs))
            picked.append(len(places) - before)
        self.picked = tuple(picked)
        self.ids = torch.tensor(rows, device=device)
        self.row, self.column, self.targets = torch.tensor(places, device=device).view(-1, 3).unbind(1)

    def log_probabilities(self, base: Any) -> "list[tuple[Tensor, Tensor]]":
        """Of the chosen and of the rejected completions of each block, [pairs] each, in nats; within `Adapters.batch`."""
        logits = base(input_ids=self.ids, use_cache=False).logits
        tokens = _token_log_probabilities()(logits, self.targets, self.picked)
        rows = tokens.new_zeros(self.ids.shape).index_put((self.row, self.column), tokens)
        sums = rows.sum(1).view(len(self.blocks), 2, self.half)
        return [
            (sums[i, 0, : len(block.pairs)], sums[i, 1, : len(block.pairs)])
            for i, block in enumerate(self.blocks)
        ]


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

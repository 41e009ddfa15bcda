"""The passes of a DPO loop through the base: log-probabilities forward, gradients of the adapters backward.

`OneProcess` holds the whole base. `sparta.training.sharded` divides it over the GPUs of a node.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from sparta.training.dpo_batches import REFERENCE_TOKENS, Adapters, Block, DpoBatch, batches
from sparta.training.loading import padding_id
from sparta.training.lora_stack import keeps_blocks_apart

if TYPE_CHECKING:
    from torch import Tensor

Read = tuple[Block, "Tensor", "Tensor"]
"""A block, and the log-probabilities of its chosen and of its rejected completions, [pairs] each."""
Loss = Callable[[Block, "Tensor", "Tensor"], "Tensor"]
"""From a `Read` to what to run backward from. Blocks share no term, so the losses of several are added up."""

_CPU_TOKENS = 4096
"""Tokens of a batch on a CPU, at most: a larger one is no faster there, and takes more memory."""


class Passes(Protocol):
    """What the loop asks of the base and the adapters on it, which it does not touch itself."""

    def put(self, member: int, weights: "Tensor") -> None:
        """The adapter of `member` has these flat weights from now on."""

    def read(self, blocks: Sequence[Block]) -> Iterator[Read]:
        """All of `blocks` without gradients, in any order."""

    def learn(self, steps: Sequence[Sequence[Block]], loss: Loss, gradients: "Mapping[int, Tensor]") -> None:
        """The passes of one update, forward and backward. steps: the blocks of each of its steps, in which a member has at most one.

        gradients: by member, flat; what the steps give is added to them.
        """


class OneProcess:
    """The passes of a base that this process holds whole, `adapters` on it."""

    def __init__(self, base: Any, adapters: Adapters) -> None:
        self._base, self._adapters, self._filler = base, adapters, padding_id(base.config)
        self._device = base.device
        self._apart = keeps_blocks_apart(base.device)

    def put(self, member: int, weights: "Tensor") -> None:
        self._adapters.put(member, weights)

    def read(self, blocks: Sequence[Block]) -> Iterator[Read]:
        import torch

        with torch.no_grad():
            for blocks_of_batch in batches(blocks, REFERENCE_TOKENS[self._device.type], alike=self._apart):
                yield from self._read(blocks_of_batch)

    def _read(self, blocks: Sequence[Block]) -> list[Read]:
        with passing(blocks, self._adapters, self._device, self._filler) as batch:
            made = batch.log_probabilities(self._base)
        return [(block, *sides) for block, sides in zip(blocks, made, strict=True)]

    def learn(self, steps: Sequence[Sequence[Block]], loss: Loss, gradients: "Mapping[int, Tensor]") -> None:
        import torch

        most = _CPU_TOKENS if self._apart else math.inf
        for blocks in steps:
            for blocks_of_batch in batches(blocks, most, alike=self._apart):
                with passing(blocks_of_batch, self._adapters, self._device, self._filler) as batch:
                    made = batch.log_probabilities(self._base)
                    losses = [loss(block, *sides) for block, sides in zip(blocks_of_batch, made, strict=True)]
                    # Of different members: no gradient has a part of two of them.
                    torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
            for member, gradient in gradients.items():
                self._adapters.add_gradient(member, gradient)
            self._adapters.clear()


@contextmanager
def passing(blocks: Sequence[Block], adapters: Adapters, device: Any, filler: int) -> Iterator[DpoBatch]:
    """In this block the batch of `blocks` may pass."""
    batch = DpoBatch(blocks, device, filler)
    members = [block.member for block in blocks]
    with adapters.batch(members, batch.picked, (batch.row, batch.column)):
        yield batch

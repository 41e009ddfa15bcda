"""Several LoRA adapters on one base at the same time: every row of a batch passes the base's layers, and the adapter of its own member.

A batch is made of blocks of equal size, each of one member. Weights and gradients of all adapters lie in one matrix, a row a member.

**Results do not depend on which members share a batch.** On a CPU each block is multiplied by itself, never together with another, and blocks
share a batch only if they have the same shape (`sparta.training.dpo_batches`): all that is shared is done element by element or row by row.
So a member's numbers are bit-identical to those of its training alone. On a GPU all blocks are multiplied at once, and may differ in the
last bits, as they do between two kinds of GPU.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from sparta.training.adapter_tensors import AdapterTensors
from sparta.training.frozen_layers import is_linear, matrix_of, quantisation_of

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


@dataclass
class _Batch:
    """Whose blocks the batch in work is made of. members: of its blocks, in order. picked: rows of each block that reach the output layer."""

    members: tuple[int, ...] = ()
    picked: tuple[int, ...] = ()


@dataclass(frozen=True)
class LoraPiece:
    """Rows of a flattened batch that are multiplied at once: from `start` to `stop`, an equal share for each of `members`."""

    start: int
    stop: int
    members: tuple[int, ...]


@dataclass
class _Slot:
    """Where the matrices of one layer lie in a row of the stack. rank: the highest of all members; ranks, scales: of each, 0 without."""

    offset: int
    inputs: int
    outputs: int
    rank: int = 0
    ranks: list[int] = field(default_factory=list)
    scales: list[float] = field(default_factory=list)

    @property
    def size(self) -> int:
        return self.rank * (self.inputs + self.outputs)


class LoraStack:
    """The adapters of `members` on `base`, whose linear layers it replaces while it is there (`remove` puts them back).

    weights, gradients: of all members, in the type of the base, [members, size]; a member's own are put in and taken out by `put` and
    `gradient`, flat, in the order of its AdapterTensors.
    """

    def __init__(self, base: Any, members: Sequence[AdapterTensors]) -> None:
        import torch

        self._base, self._batch = base, _Batch()
        device, dtype = base.device, base.dtype
        self._apart = keeps_blocks_apart(device)
        slots = _slots(members)
        size = sum(slot.size for slot in slots.values())
        self.weights = torch.zeros(len(members), size, device=device, dtype=dtype)
        self.gradients = torch.zeros_like(self.weights)
        self._members = [_Member(slots, member, size) for member in members]
        self._replaced: dict[str, Any] = {}
        output = base.get_output_embeddings()
        kind = _layer_class()
        for name, module in list(base.named_modules()):
            if not is_linear(module) or (name not in slots and not self._apart):
                continue
            slot = slots.get(name)
            lora = None if slot is None else _LayerLora(slot, self.weights, self.gradients)
            self._replaced[name] = module
            base.set_submodule(name, kind(module, lora, self, module is output))
        self._picking = base.get_output_embeddings().register_forward_pre_hook(self._pick)
        self._positions: Any = None

    def put(self, member: int, weights: "Tensor") -> None:
        """Take over the flat `weights` of that member."""
        for in_row, flat in self._members[member].pieces(self.weights[member], weights):
            in_row.copy_(flat)

    def add_gradient(self, member: int, gradient: "Tensor") -> None:
        """Add what has come together for that member to the flat `gradient`, in its type."""
        for in_row, flat in self._members[member].pieces(self.gradients[member], gradient):
            flat += in_row

    def clear(self) -> None:
        """Forget the gradients that have come together."""
        self.gradients.zero_()

    @contextmanager
    def batch(
        self, members: Sequence[int], picked: Sequence[int], positions: "tuple[Tensor, Tensor]"
    ) -> Iterator[None]:
        """In this block a batch passes. members: of its blocks. positions: rows and columns of the tokens whose logits are asked for, the
        first `picked[0]` of them of the first block, and so on: the model's logits are of these tokens alone, [sum(picked), vocabulary].
        """
        self._batch.members, self._batch.picked, self._positions = tuple(members), tuple(picked), positions
        try:
            yield
        finally:
            self._batch.members, self._positions = (), None

    def pieces(self, rows: int, is_output: bool) -> list[LoraPiece]:
        """How a flattened batch of that many rows is multiplied."""
        members = self._batch.members
        if not self._apart and not is_output:
            return [LoraPiece(0, rows, members)]
        sizes = self._batch.picked if is_output else (rows // len(members),) * len(members)
        found, start = [], 0
        for member, size in zip(members, sizes, strict=True):
            found.append(LoraPiece(start, start + size, (member,)))
            start += size
        assert start == rows, "every row is of one member"
        return found

    def remove(self) -> None:
        """Put the base's own layers back."""
        self._picking.remove()
        for name, module in self._replaced.items():
            self._base.set_submodule(name, module)

    def _pick(self, module: "Module", inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (inputs[0][self._positions], *inputs[1:])


def keeps_blocks_apart(device: Any) -> bool:
    """Whether on `device` a block is multiplied by itself, so that its result is its own bit by bit."""
    return bool(device.type == "cpu")


def _slots(members: Sequence[AdapterTensors]) -> dict[str, _Slot]:
    """The layers that any of `members` adapts, each with room for its highest rank."""
    slots: dict[str, _Slot] = {}
    for number, member in enumerate(members):
        for part in member.parts:
            slot = slots.setdefault(part.module, _Slot(0, part.inputs, part.outputs))
            slot.ranks += [0] * (len(members) - len(slot.ranks))
            slot.scales += [0.0] * (len(members) - len(slot.scales))
            slot.rank = max(slot.rank, part.rank)
            slot.ranks[number], slot.scales[number] = part.rank, part.scale
    offset = 0
    for slot in slots.values():
        slot.offset = offset
        offset += slot.size
    return slots


class _Member:
    """Where the flat weights of one member lie in its row of the stack, which has `size` numbers."""

    def __init__(self, slots: dict[str, _Slot], member: AdapterTensors, size: int) -> None:
        self._slots, self._parts = slots, member.parts
        # Adapters of one shape are stacked as they are.
        self._as_it_is = member.size == size and all(
            (part.a, part.b, part.rank) == (slot.offset, slot.offset + slot.rank * slot.inputs, slot.rank)
            for part, slot in ((part, slots[part.module]) for part in member.parts)
        )

    def pieces(self, row: "Tensor", flat: "Tensor") -> "Iterator[tuple[Tensor, Tensor]]":
        """Views that belong together, of the stack's row and of the flat weights."""
        if self._as_it_is:
            yield row, flat
            return
        for part in self._parts:
            a, b = (side[0] for side in _views(row[None], self._slots[part.module]))
            ends = part.a + part.rank * part.inputs, part.b + part.outputs * part.rank
            yield a[: part.rank], flat[part.a : ends[0]].view(part.rank, part.inputs)
            yield b[:, : part.rank], flat[part.b : ends[1]].view(part.outputs, part.rank)


def can_stack(base: Any, members: Sequence[AdapterTensors]) -> bool:
    """Whether all weights that `base` multiplies rows with are linear layers that get whole batches, and all adapters are plain LoRA on these.

    Tried out on a batch: a layer that gets some of the rows alone, as an expert of a mixture does, cannot tell whose they are.
    """
    import torch
    from torch.nn import Embedding

    if not all(member.is_plain for member in members):
        return False
    known = {
        id(parameter)
        for module in base.modules()
        if is_linear(module) or isinstance(module, Embedding)
        for parameter in module.parameters(recurse=False)
    }
    if any(parameter.dim() > 1 and id(parameter) not in known for parameter in base.parameters()):
        return False
    linear = {name: module for name, module in base.named_modules() if is_linear(module)}
    seen: dict[str, tuple[int, ...]] = {}
    hooks = [
        module.register_forward_pre_hook(
            lambda _, inputs, name=name: seen.update({name: inputs[0].shape[:-1]})
        )
        for name, module in linear.items()
    ]
    shape = (2, 8)
    try:
        with torch.no_grad():
            base(input_ids=torch.arange(16, device=base.device).view(shape) % 8, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return all(seen.get(name) in (shape, (16,)) for name in linear)


class _LayerLora:
    """The adapters of all members on one layer: views of the stack's weights and gradients, made once.

    a, b: A [members, rank, inputs] and B [members, outputs, rank]; of_a, of_b: their gradients.
    """

    def __init__(self, slot: _Slot, weights: "Tensor", gradients: "Tensor") -> None:
        import torch

        self.a, self.b = _views(weights, slot)
        self.of_a, self.of_b = _views(gradients, slot)
        self._scales = slot.scales
        self._all_scales = torch.tensor(slot.scales, device=weights.device, dtype=weights.dtype).view(
            -1, 1, 1
        )
        # Each member's own, in its own rank.
        self._own = [
            (self.a[m, :r], self.b[m, :, :r], self.of_a[m, :r], self.of_b[m, :, :r])
            for m, r in enumerate(slot.ranks)
        ]

    def add(self, rows: "Tensor", out: "Tensor", members: tuple[int, ...]) -> Any:
        """Adds scale (rows A') B' to `out`. Returns rows A', for the way back."""
        import torch

        if len(members) == 1:
            [member] = members
            a, b, *_ = self._own[member]
            if not len(a):
                return None
            inner = torch.mm(rows, a.t())
            out.addmm_(inner, b.t(), alpha=self._scales[member])
            return inner
        a, b, scales = self._of(members)
        inner = torch.bmm(_split(rows, members), a.mT)
        _split(out, members).baddbmm_(inner * scales, b.mT)
        return inner

    def add_back(
        self, rows: "Tensor", inner: Any, given: "Tensor", out: Any, members: tuple[int, ...]
    ) -> None:
        """Adds to the gradients of A and B, and where asked to `out`, that of the rows; given: that of the result. inner: as `add` returned it."""
        import torch

        if inner is None:
            return
        if len(members) == 1:
            [member] = members
            a, b, of_a, of_b = self._own[member]
            scale = self._scales[member]
            of_inner = torch.mm(given, b)
            of_a.addmm_(of_inner.t(), rows, alpha=scale)
            of_b.addmm_(given.t(), inner, alpha=scale)
            if out is not None:
                out.addmm_(of_inner, a, alpha=scale)
            return
        a, b, scales = self._of(members)
        given = _split(given, members)
        of_inner = torch.bmm(given, b).mul_(scales)
        index = torch.tensor(members, device=a.device)
        self.of_a.index_add_(0, index, torch.bmm(of_inner.mT, _split(rows, members)))
        self.of_b.index_add_(0, index, torch.bmm(given.mT, inner * scales))
        if out is not None:
            _split(out, members).baddbmm_(of_inner, a)

    def _of(self, members: tuple[int, ...]) -> tuple["Tensor", "Tensor", "Tensor"]:
        """A, B and scales of `members`, in that order."""
        import torch

        if members == tuple(range(len(self.a))):
            return self.a, self.b, self._all_scales
        index = torch.tensor(members, device=self.a.device)
        return self.a[index], self.b[index], self._all_scales[index]


def _views(matrix: "Tensor", slot: _Slot) -> tuple["Tensor", "Tensor"]:
    """A [members, rank, inputs] and B [members, outputs, rank] of one layer, in `matrix`."""
    middle = slot.offset + slot.rank * slot.inputs
    a, b = matrix[:, slot.offset : middle], matrix[:, middle : slot.offset + slot.size]
    return a.view(len(matrix), slot.rank, slot.inputs), b.view(len(matrix), slot.outputs, slot.rank)


def _split(rows: "Tensor", members: tuple[int, ...]) -> "Tensor":
    """[members, rows of each, width]."""
    return rows.view(len(members), -1, rows.shape[-1])


@cache
def _layer_class() -> Any:
    """The linear layer with stacked adapters; a function because importing torch takes seconds."""
    import torch

    class StackedLinear(torch.nn.Module):
        """A linear layer of the base, with the adapters on it if there are any."""

        def __init__(self, linear: Any, lora: _LayerLora | None, stack: LoraStack, is_output: bool) -> None:
            super().__init__()
            # Read anew in every pass: a base that is divided over GPUs has its whole weights only while the layer works.
            self.linear = linear
            self.in_features, self.out_features = linear.in_features, linear.out_features
            self._lora, self._stack, self._is_output = lora, stack, is_output
            # What makes autograd come here where the rows are of nothing that learns: gradients of A and B are added in place.
            self._learns = None if lora is None else torch.zeros(0, requires_grad=True)

        @property
        def weight(self) -> Any:
            return self.linear.weight

        @property
        def bias(self) -> Any:
            return self.linear.bias

        def forward(self, rows: "Tensor") -> "Tensor":
            flat = rows.reshape(-1, self.in_features)
            pieces = self._stack.pieces(len(flat), self._is_output)
            multiply: Any = _Multiply.apply
            made = multiply(flat, self._learns, self.weight, self.bias, self._lora, pieces)
            return made.view(*rows.shape[:-1], self.out_features)  # type: ignore[no-any-return]

    class _Multiply(torch.autograd.Function):
        """rows W' + bias + scale (rows A') B', each piece with the A and B of its members."""

        @staticmethod
        def forward(ctx: Any, rows: Any, learns: Any, weight: Any, bias: Any, lora: Any, pieces: Any) -> Any:
            state = quantisation_of(weight)
            matrix = matrix_of(weight, state)
            made = rows.new_empty(len(rows), len(matrix))
            inner: list[Any] = []
            for piece in pieces:
                of_piece, out = rows[piece.start : piece.stop], made[piece.start : piece.stop]
                if bias is None:
                    torch.mm(of_piece, matrix.t(), out=out)
                else:
                    torch.addmm(bias, of_piece, matrix.t(), out=out)
                if lora is not None:
                    inner.append(lora.add(of_piece, out, piece.members))
            ctx.lora, ctx.pieces, ctx.state = lora, pieces, state
            ctx.save_for_backward(weight, rows if lora is not None else None, *inner)
            return made

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            weight, rows, *inner = ctx.saved_tensors
            gradient = gradient.contiguous()
            matrix: Any = matrix_of(weight, ctx.state) if ctx.needs_input_grad[0] else None
            of_rows = None if matrix is None else gradient.new_empty(len(gradient), matrix.shape[1])
            for number, piece in enumerate(ctx.pieces):
                part = slice(piece.start, piece.stop)
                given, out = gradient[part], None
                if of_rows is not None:
                    out = of_rows[part]
                    torch.mm(given, matrix, out=out)
                if ctx.lora is not None:
                    ctx.lora.add_back(rows[part], inner[number], given, out, piece.members)
            return of_rows, None, None, None, None, None

    return StackedLinear

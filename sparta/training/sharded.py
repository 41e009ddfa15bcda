"""A base that is divided over the GPUs of one node, for trainings that do not fit one of them.

Every rank is a process with one GPU (without GPUs, some cores). FSDP2 divides the frozen weights of each decoder layer over the ranks; they
are whole on every GPU only while that layer works. Adapters are small and are not divided: every rank has them all.

Rank 0 runs the loop (`sparta.training.dpo`) as a single process would, with losses, optimizer, checkpoints and log. The other ranks only do
passes: rank 0 sends the weights, and says which rows each rank gets. A row is one side of one pair. The ranks send back log-probabilities,
get the gradients of these, and send back the gradients of the weights, which rank 0 adds up. So nothing can differ between ranks that would
have to be kept equal, and results are those of one process, up to the order of sums.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparta.errors import SpartaError
from sparta.training.dpo_batches import REFERENCE_TOKENS, Adapters, Block, batches, sides_of
from sparta.training.job import AnyJob, PreferenceExample
from sparta.training.loading import load_base, padding_id
from sparta.training.new_adapter import decoder_layers
from sparta.training.passes import Loss, Passes, Read, passing

if TYPE_CHECKING:
    from torch import Tensor

_Row = tuple[int, int, int]
"""Member, number of the pair among its examples, and side."""
_Assignment = list[list[_Row]]
"""The rows of each rank in one pass. All ranks pass at the same time, one without rows a row that counts for nothing."""
_PUT, _READ, _LEARN = "put", "read", "learn"


class Team:
    """The ranks, as rank `rank` of `size` sees them. store: a file that all of them can reach, and that no other team uses."""

    def __init__(self, rank: int, size: int, device: str, store: Path) -> None:
        import torch
        from torch import distributed
        from torch.distributed.device_mesh import init_device_mesh

        self.rank, self.size = rank, size
        if device == "cuda":
            torch.cuda.set_device(rank)
        common: Any = distributed
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo",
            store=common.FileStore(str(store), size),
            rank=rank,
            world_size=size,
        )
        self._mesh = init_device_mesh(device, (size,))

    def load(self, job: AnyJob, dtype: str) -> Any:
        """The base of `job`, of which this rank has its part on its device. Raises SpartaError where it cannot be divided.

        Weights that are stored in `dtype` are mapped from their files, so the ranks share one copy of them; others each rank converts, in memory of its
        own (see `sparta.training.ranks.check_memory`). A GPU never holds more than its part and one layer.
        """
        from torch.distributed.fsdp import fully_shard

        base = load_base(job, "cpu", dtype)
        names = [name for name, parameter in base.named_parameters() if not parameter.is_floating_point()]
        if names:
            raise SpartaError(
                f"The base of {job.model}, {job.base}, has quantized weights ({names[0]}), which are not divided over GPUs: set "
                "cluster.gpus_per_training to 1, or take a base that is not quantized."
            )
        layers = decoder_layers(base)
        if not layers:
            raise SpartaError(
                f"The base of {job.model}, {job.base}, has no list of layers to divide over GPUs: set cluster.gpus_per_training to 1."
            )
        for layer in layers:
            fully_shard(layer, mesh=self._mesh, reshard_after_forward=True)
        fully_shard(base, mesh=self._mesh)
        return base

    def passes(
        self,
        base: Any,
        adapters: Adapters,
        examples: Sequence[Sequence[PreferenceExample]],
        sizes: Sequence[int],
    ) -> "Passes | None":
        """For rank 0, what its loop asks of the team. The other ranks do their part until rank 0 calls `end_passes`, and get None.

        examples, sizes: of each member, its pairs and the numbers in its adapter.
        """
        rank = _Rank(self.rank, base, adapters, examples, sizes)
        if self.rank == 0:
            return _Lead(self, rank)
        while (order := self.broadcast(None)) is not None:
            rank.do(*order)
        return None

    def end_passes(self) -> None:
        """The other ranks leave `passes`."""
        self.broadcast(None)

    def broadcast(self, order: Any) -> Any:
        """What rank 0 gives."""
        import torch
        from torch import distributed

        orders = [order]
        distributed.broadcast_object_list(orders, 0, device=torch.device("cpu"))
        return orders[0]


class _Rank:
    """What every rank does when rank 0 says so, at the same time as all others."""

    def __init__(
        self,
        number: int,
        base: Any,
        adapters: Adapters,
        examples: Sequence[Sequence[PreferenceExample]],
        sizes: Sequence[int],
    ) -> None:
        import torch

        self._number, self._base, self._adapters, self._examples = number, base, adapters, examples
        self.device = base.device
        self._filler = padding_id(base.config)
        self._sizes = sizes
        self._gradients = [torch.zeros(size, device=self.device) for size in sizes]

    def do(self, what: str, *given: Any) -> None:
        """What rank 0 does by one of the other methods, with less to give."""
        if what == _PUT:
            self.put(*given)
        elif what == _READ:
            for assignment in given[0]:
                self.read(assignment)
        elif what == _LEARN:
            assignments, members = given
            for assignment in assignments:
                self.learn(assignment, members)
            self.add_up(members)

    def put(self, member: int, weights: "Tensor | None" = None) -> None:
        """weights: flat, float32; rank 0 has them."""
        import torch
        from torch import distributed

        if weights is None:
            weights = torch.empty(self._sizes[member], device=self.device)
        distributed.broadcast(weights, 0)
        self._adapters.put(member, weights)

    def read(self, assignment: _Assignment) -> "Tensor":
        """Log-probabilities of all rows of `assignment`, in its order, on rank 0."""
        import torch

        with torch.no_grad(), self._passing(assignment) as mine:
            return self._of_all(assignment, mine)

    def learn(
        self,
        assignment: _Assignment,
        members: Sequence[int],
        gradient_of: "Callable[[Tensor], Tensor]" = lambda made: made,
    ) -> None:
        """Forward and backward. gradient_of: on rank 0, from the log-probabilities of all rows to the gradient of the losses."""
        from torch import distributed

        # The way back is within the pass too: with gradient checkpointing, layers do their part again.
        with self._passing(assignment) as mine:
            gradient = gradient_of(self._of_all(assignment, mine))
            distributed.broadcast(gradient, 0)
            # A row that fills the pass counts for nothing.
            of_mine = mine.new_zeros(len(mine))
            rows = self._place(assignment)
            of_mine[: rows.stop - rows.start] = gradient[rows]
            mine.backward(of_mine)  # type: ignore[no-untyped-call]
        for member in members:
            self._adapters.add_gradient(member, self._gradients[member])
        self._adapters.clear()

    def add_up(self, members: Sequence[int], gradients: "Mapping[int, Tensor] | None" = None) -> None:
        """Add what all ranks have learnt for `members` to `gradients`, which rank 0 has, and forget it."""
        from torch import distributed

        for member in members:
            mine = self._gradients[member]
            distributed.reduce(mine, 0)
            if gradients is not None:
                gradients[member].add_(mine)
            mine.zero_()

    @contextmanager
    def _passing(self, assignment: _Assignment) -> "Iterator[Tensor]":
        """In this block this rank's rows pass, or one that fills the pass if it has none. Yields their log-probabilities."""
        import torch

        nothing = PreferenceExample((self._filler,), (self._filler,), (self._filler,))
        blocks = [
            Block(member, (number,), (self._examples[member][number],), side=side)
            for member, number, side in assignment[self._number]
        ] or [Block(0, (0,), (nothing,), side=0)]
        with passing(blocks, self._adapters, self.device, self._filler) as batch:
            made = batch.log_probabilities(self._base)
            yield torch.stack([sides[block.side or 0][0] for block, sides in zip(blocks, made, strict=True)])

    def _of_all(self, assignment: _Assignment, mine: "Tensor") -> "Tensor":
        """The log-probabilities of all ranks, on rank 0. mine: of this one."""
        from torch import distributed

        made, rows = mine.new_zeros(sum(map(len, assignment))), self._place(assignment)
        made[rows] = mine.detach()[: rows.stop - rows.start]
        distributed.reduce(made, 0)
        return made

    def _place(self, assignment: _Assignment) -> slice:
        """This rank's rows among all of `assignment`."""
        start = sum(map(len, assignment[: self._number]))
        return slice(start, start + len(assignment[self._number]))


class _Lead:
    """The passes of the loop on rank 0, shared out over all ranks. See `sparta.training.passes.Passes`."""

    def __init__(self, team: Team, rank: _Rank) -> None:
        self._team, self._rank = team, rank

    def put(self, member: int, weights: "Tensor") -> None:
        self._team.broadcast((_PUT, member))
        self._rank.put(member, weights)

    def read(self, blocks: Sequence[Block]) -> Iterator[Read]:
        most, size = REFERENCE_TOKENS[self._rank.device.type], self._team.size
        sides = [side for block in blocks for side in sides_of(block)]
        shares = [[_row(side) for side in batch] for batch in batches(sides, most, alike=False)]
        shares += [[] for _ in range(-len(shares) % size)]
        assignments = [shares[at : at + size] for at in range(0, len(shares), size)]
        self._team.broadcast((_READ, assignments))
        made: dict[_Row, Tensor] = {}
        for assignment in assignments:
            made.update(zip(chain(*assignment), self._rank.read(assignment), strict=True))
        return ((block, *_of_block(block, made)) for block in blocks)

    def learn(self, steps: Sequence[Sequence[Block]], loss: Loss, gradients: "Mapping[int, Tensor]") -> None:
        """As many steps as there are ranks pass at once, so that no rank gets more rows than one process would."""
        size, members = self._team.size, sorted(gradients)
        rounds = [list(chain(*steps[at : at + size])) for at in range(0, len(steps), size)]
        assignments = [_assigned(blocks, size) for blocks in rounds]
        self._team.broadcast((_LEARN, assignments, members))
        for blocks, assignment in zip(rounds, assignments, strict=True):
            self._rank.learn(assignment, members, partial(_gradient, blocks, list(chain(*assignment)), loss))
        self._rank.add_up(members, gradients)


def _gradient(blocks: Sequence[Block], rows: Sequence[_Row], loss: Loss, made: "Tensor") -> "Tensor":
    """Of the losses of `blocks`, with regard to the log-probabilities `made` of `rows`.

    A pair that two epochs have in one round is there twice with the same log-probabilities: one of its places has the gradient of both.
    """
    import torch

    made.requires_grad_()
    known = dict(zip(rows, made, strict=True))
    losses = [loss(block, *_of_block(block, known)) for block in blocks]
    [gradient] = torch.autograd.grad(torch.stack(losses).sum(), made)
    return gradient


def _row(side: Block) -> _Row:
    assert side.side is not None
    return side.member, side.numbers[0], side.side


def _assigned(blocks: Sequence[Block], ranks: int) -> _Assignment:
    """The rows of `blocks`, so that every rank has about as many, and about as long ones."""
    sides = sorted((side for block in blocks for side in sides_of(block)), key=lambda side: -side.length)
    rows = [_row(side) for side in sides]
    return [rows[rank::ranks] for rank in range(ranks)]


def _of_block(block: Block, made: "Mapping[_Row, Tensor]") -> "tuple[Tensor, Tensor]":
    """The log-probabilities of the chosen and of the rejected completions of `block`."""
    import torch

    chosen, rejected = (
        torch.stack([made[block.member, number, side] for number in block.numbers]) for side in (0, 1)
    )
    return chosen, rejected

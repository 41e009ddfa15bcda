"""DPO (ALGORITHM, step 7): the adapter of M^{t-1} is trained on, and is the reference as it was; one member, or several of one base at once.

Members that are trained at the same time share the base's forward and backward pass and nothing else: each has its own order of pairs, gradient,
clipping, optimizer, schedule, log and checkpoints. So each ends as it would have alone: on a CPU bit by bit (see `lora_stack`), on a GPU up
to rounding. The reference's log-probabilities are computed once, before the first update.

The loop is our own: for a small base it takes less than half the processor time of TRL's DPOTrainer, which cannot train several members. TRL is the
measure of what comes out: tests hold losses and weights to those of its DPOTrainer.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from sparta.engines.stopwatch import TRAIN, doing
from sparta.errors import SpartaError
from sparta.training import preemption
from sparta.training.adapter_folder import StartingAdapter, check_trainable
from sparta.training.adapter_tensors import AdapterTensors, tensors_of
from sparta.training.checkpoints import job_identity, open_work
from sparta.training.dpo_batches import Adapters, Block
from sparta.training.job import (
    PreferenceExample,
    Progress,
    TrainingJob,
    TrainingReport,
    silent,
    usable_pairs,
)
from sparta.training.learner import Learner
from sparta.training.loading import (
    load_base,
    put_adapter,
    release_gpu,
    resolve_device,
    resolve_dtype,
)
from sparta.training.lora_stack import LoraStack, can_stack
from sparta.training.one_adapter import OneAdapter
from sparta.training.one_prompt import can_branch, saves_much
from sparta.training.passes import OneProcess, Passes
from sparta.training.ranks import train_over_ranks
from sparta.training.runner import begin, check_vocabulary, end, quiet

if TYPE_CHECKING:
    from torch import Tensor

    from sparta.training.sharded import Team

ProgressOf = Callable[[TrainingJob], Progress]
Finished = Callable[[TrainingJob, TrainingReport], None]
"""Called with a job as soon as its `out` is there."""
Updating = Callable[[], AbstractContextManager[None]]
"""`preemption.postponable`, or what does that and more: members are updated in its block."""

_SMALL = 20_000_000
"""Parameters of a base that one CPU thread trains faster than two: they wait for each other more than they work."""


class Start(NamedTuple):
    """A job before its base is loaded. Values only: it can be sent to another process."""

    job: TrainingJob
    adapter: StartingAdapter
    examples: tuple[PreferenceExample, ...]
    started: float


def train_dpo(job: TrainingJob, progress: Progress = silent) -> TrainingReport:
    """Does `job`, resuming it where `job.work` holds a checkpoint of it, and makes `job.out`. See `train_members`."""
    reports: list[TrainingReport] = []
    train_members([job], 1, lambda _: progress, lambda _, report: reports.append(report))
    [report] = reports
    return report


def train_members(
    jobs: Sequence[TrainingJob], at_once: int, progress: ProgressOf, finished: Finished, ranks: int = 1
) -> None:
    """Does `jobs`, all of one base, which is loaded once; up to `at_once` of them at the same time. ranks: processes that the base is divided over,
    each with a GPU (see `sparta.training.sharded`); 1: this one holds it whole.

    A job is resumed from its newest checkpoint, wherever the others are. Without a usable example an adapter is copied. All dropout is off:
    the reference is a function. A base whose layers get parts of a batch, or an adapter that is more than plain LoRA, is trained one member
    after another. Raises SpartaError where the base or a starting adapter cannot be used, memory does not suffice, a loss is not finite, or a
    job's `out` is already there; what was finished before stays.
    """
    starts = []
    for job in jobs:
        started = time.monotonic()
        adapter, examples = begin(job), usable_pairs(job)
        check_trainable(job.model, job.adapter)
        if examples:
            starts.append(Start(job, adapter, examples, started))
        else:
            finished(job, _copied(job, adapter, started))
    if not starts:
        return
    one = jobs[0]
    if strangers := [
        job for job in jobs if (job.base, job.dtype, job.device) != (one.base, one.dtype, one.device)
    ]:
        raise ValueError(
            f"{strangers[0].model} and {one.model} have different bases: they are not trained together"
        )
    if ranks > 1:
        train_over_ranks(starts, at_once, ranks, progress, finished)
        return
    try:
        train_group_by_group(starts, at_once, progress, finished)
    finally:
        release_gpu()


def _copied(job: TrainingJob, adapter: StartingAdapter, started: float) -> TrainingReport:
    dropped = len(job.examples)
    note = {"update": 0, "note": "no usable pairs: the adapter is a copy", "pairs": 0, "dropped": dropped}
    report = TrainingReport(0, dropped, 0, None, None, 0, time.monotonic() - started)
    return end(job, adapter, adapter.weights, [note], report)


def train_group_by_group(
    starts: Sequence[Start],
    at_once: int,
    progress: ProgressOf,
    finished: Finished,
    team: "Team | None" = None,
    updating: Updating = preemption.postponable,
) -> None:
    """Loads the base and trains on it, `at_once` members at a time. team: what this process is a rank of, if it does not hold the base whole; only
    its rank 0 makes anything of it.
    """
    import torch

    job = starts[0].job
    device = resolve_device(job.device)
    dtype = resolve_dtype(job.dtype, device)
    together: Sequence[Start] = starts
    try:
        with quiet():
            base = load_base(job, device, dtype) if team is None else team.load(job, dtype)
            with _threads(base, job.threads, 1 if team is None else team.size):
                for first in range(0, len(starts), at_once):
                    together = starts[first : first + at_once]
                    _train_group(base, together, dtype, progress, finished, team, updating)
    except torch.OutOfMemoryError as error:
        raise SpartaError(_out_of_memory(together)) from error


def _out_of_memory(starts: Sequence[Start]) -> str:
    job, section = starts[0].job, starts[0].job.section
    longest = max(example.length for start in starts for example in start.examples)
    fewer = "lower cluster.train_together, " if len(starts) > 1 else ""
    more = f" and {len(starts) - 1} more" if len(starts) > 1 else ""
    divided = "" if job.quantize else ", or divide the base by a larger cluster.gpus_per_training"
    return (
        f"{job.method} of {job.model}{more} ran out of GPU memory ({section}.batch_size {job.settings.batch_size}, longest {job.unit} "
        f"{longest} tokens): {fewer}lower {section}.batch_size and raise {section}.accumulation by the same factor, set "
        f"{section}.gradient_checkpointing to true, {'or ' * (not divided)}lower {section}.max_length{divided}."
    )


def _train_group(
    base: Any,
    starts: Sequence[Start],
    dtype: str,
    progress: ProgressOf,
    finished: Finished,
    team: "Team | None",
    updating: Updating,
) -> None:
    """Does the jobs of `starts` at the same time, or where that cannot be one after another."""
    tensors, weights = _read_adapters(base, starts)
    stacked = can_stack(base, tensors)
    if not stacked and len(starts) > 1:
        for start in starts:
            _train_group(base, [start], dtype, progress, finished, team, updating)
        return
    for start in starts:
        check_vocabulary(start.job, start.examples, base)
    once = [team is None and saves_much(start.examples) for start in starts]
    if any(once) and not (stacked and can_branch(base)):
        once = [False] * len(starts)
    adapters: Adapters
    if stacked:
        adapters = LoraStack(base, tensors)
    else:
        [start] = starts
        adapters = OneAdapter(put_adapter(base, start.job, start.adapter, _NAME), _NAME, tensors[0])
    _prepare(base, starts[0].job)
    try:
        if team is None:
            passes: Passes | None = OneProcess(base, adapters)
        else:
            sizes = [member.size for member in tensors]
            passes = team.passes(base, adapters, [start.examples for start in starts], sizes)
        if passes is None:
            return
        learners = [
            Learner(
                number,
                start.job,
                start.adapter,
                start.examples,
                tensors[number],
                weights[number],
                dtype,
                once[number],
                1 if team is None else team.size,
            )
            for number, start in enumerate(starts)
        ]
        with doing(TRAIN):
            _Group(passes, learners, progress, finished, updating).train(starts, dtype)
        if team is not None:
            team.end_passes()
    finally:
        adapters.remove()


def _prepare(base: Any, job: TrainingJob) -> None:
    """Nothing of the base is random."""
    base.train()
    for module in base.modules():
        if type(module).__name__ == "Dropout":
            module.p = 0.0
    if job.settings.gradient_checkpointing is True:
        base.gradient_checkpointing_enable({"use_reentrant": False})


def _read_adapters(base: Any, starts: Sequence[Start]) -> "tuple[list[AdapterTensors], list[Tensor]]":
    """What the adapters are made of, and their flat weights, float32, on the device of `base`.

    PEFT puts an adapter on the base, which says whether it fits, and takes it off again; of those that are made alike the first, as that takes
    longer than training a small one.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import load_file

    known: dict[str, AdapterTensors] = {}
    tensors, weights = [], []
    for start in starts:
        stored = load_file(start.adapter.weights)
        kind = repr((start.adapter.config, sorted((name, tensor.shape) for name, tensor in stored.items())))
        if kind not in known:
            model = put_adapter(base, start.job, start.adapter, _NAME)
            loaded = get_peft_model_state_dict(model, adapter_name=_NAME, save_embedding_layers=False)
            shapes = {name: tuple(tensor.shape) for name, tensor in loaded.items()}
            known[kind] = tensors_of(model, _NAME, shapes)
            model.unload()
        tensors.append(known[kind])
        weights.append(known[kind].flat(stored).to(base.device))
    return tensors, weights


_NAME = "default"
"""What PEFT calls an adapter."""


class _Group:
    """Members of one base that are trained at the same time."""

    def __init__(
        self,
        passes: Passes,
        learners: Sequence[Learner],
        progress: ProgressOf,
        finished: Finished,
        updating: Updating,
    ) -> None:
        self._passes, self._learners, self._updating = passes, learners, updating
        self._progress = [progress(learner.job) for learner in learners]
        self._finished = finished

    def train(self, starts: Sequence[Start], dtype: str) -> None:
        """From the newest checkpoint of each to the end of all."""
        found = [
            open_work(start.job.work, job_identity(start.job, start.examples, dtype)) for start in starts
        ]
        for learner in self._learners:
            self._passes.put(learner.number, learner.weights.detach())
        self._read_reference()
        for learner, checkpoint in zip(self._learners, found, strict=True):
            if checkpoint is not None:
                learner.resume(checkpoint)
                self._passes.put(learner.number, learner.weights.detach())
        with self._updating():
            active = list(self._learners)
            while active := self._without_finished(active, starts):
                self._update(active)

    def _read_reference(self) -> None:
        """The log-probabilities that the adapters give as they start, of every example once.

        In the blocks of training, so that on a CPU the first loss is that of two equal models exactly.
        """
        blocks = [block for learner in self._learners for block in learner.blocks_of_first_epoch()]
        for block, chosen, rejected in self._passes.read(blocks):
            self._learners[block.member].keep_reference(block, chosen, rejected)

    def _update(self, active: Sequence[Learner]) -> None:
        """One update of each of `active`."""
        import torch

        next_blocks = {learner.number: learner.blocks_of_next_update() for learner in active}
        shares: dict[int, list[Tensor]] = {learner.number: [] for learner in active}

        def loss(block: Block, chosen: "Tensor", rejected: "Tensor") -> "Tensor":
            learner = self._learners[block.member]
            made, share = learner.loss(block, chosen, rejected, len(next_blocks[block.member]))
            shares[block.member].append(share)
            return made

        steps = [
            [of_one[step] for of_one in next_blocks.values() if step < len(of_one)]
            for step in range(max(map(len, next_blocks.values())))
        ]
        self._passes.learn(steps, loss, {learner.number: learner.gradient for learner in active})
        results = torch.stack(
            [
                torch.cat([torch.stack(shares[learner.number]).sum(0), learner.gradient_norm()[None]])
                for learner in active
            ]
        )
        for learner, (loss_of_update, margin, accuracy, norm) in zip(active, results.tolist(), strict=True):
            learner.learn(loss_of_update, norm, margin, accuracy)
            self._passes.put(learner.number, learner.weights.detach())
        self._after_update(active)

    def _after_update(self, active: Sequence[Learner]) -> None:
        """Progress, checkpoints, and the end of the process if that is asked for."""
        for learner in active:
            self._progress[learner.number](learner.update, learner.updates, learner.log[-1]["loss"])
        leaves = preemption.requested()
        for learner in active:
            due = learner.update % learner.job.settings.save_updates == 0 and not learner.is_done
            if leaves or due:
                learner.save()
        if leaves:
            preemption.stop_here()

    def _without_finished(self, active: Sequence[Learner], starts: Sequence[Start]) -> list[Learner]:
        """`active` without those that are done, whose adapters are put in place."""
        for learner in active:
            if learner.is_done:
                self._finished(learner.job, self._end(learner, starts[learner.number]))
        return [learner for learner in active if not learner.is_done]

    def _end(self, learner: Learner, start: Start) -> TrainingReport:
        job, examples = learner.job, learner.examples
        report = TrainingReport(
            pairs=len(examples),
            dropped=len(job.examples) - len(examples),
            steps=len(learner.log),
            first_loss=learner.log[0]["loss"],
            mean_loss=fmean(record["loss"] for record in learner.log),
            tokens=job.epochs * sum(example.tokens for example in examples),
            seconds=learner.seconds(),
        )
        return end(job, start.adapter, learner.weights_file(), learner.log, report)


@contextmanager
def _threads(base: Any, asked: int | None, processes: int) -> Iterator[None]:
    """In this block torch has as many CPU threads as training on `base` is fastest with. See `threads_of_each`."""
    import torch

    if base.device.type != "cpu":
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(threads_of_each(base.num_parameters(), before, asked, processes))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def threads_of_each(parameters: int, own: int, asked: int | None, processes: int) -> int:
    """The threads of each of `processes` that train one base, each with `own` cores. asked: threads of all of them together.

    If none are asked for, a power of two: threads then share rows evenly, and no result depends on where one ends and the next begins.
    """
    if asked is not None:
        return max(1, asked // processes)
    return 1 if parameters < _SMALL else 1 << (own.bit_length() - 1)

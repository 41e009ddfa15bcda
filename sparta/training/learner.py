"""One member's DPO: which pairs come when, its weights and their optimizer, its log and its checkpoints. It knows of no other member."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparta.errors import SpartaError
from sparta.store import files
from sparta.training.adapter_folder import CONFIG, WEIGHTS, StartingAdapter
from sparta.training.adapter_tensors import AdapterTensors
from sparta.training.checkpoints import KEPT, checkpoints_in, seal
from sparta.training.dpo_batches import Block
from sparta.training.job import PreferenceExample, RatedExample, TrainingJob
from sparta.training.losses import sigmoid_loss, square_loss
from sparta.training.optimizers import make_optimizer, restore_state, saved_state
from sparta.training.runner import SCHEDULES, training_order, warmup_updates

if TYPE_CHECKING:
    from torch import Tensor

OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"


class Learner:
    """The training of `job`, begun from `start`, the flat weights of its adapter (float32, on the device).

    number: its place among those it is trained with. one_prompt: see `Block`. processes: that share the work. log: one record an update.
    """

    def __init__(
        self,
        number: int,
        job: TrainingJob,
        adapter: StartingAdapter,
        examples: Sequence[PreferenceExample],
        tensors: AdapterTensors,
        start: "Tensor",
        dtype: str,
        one_prompt: bool,
        processes: int = 1,
    ) -> None:
        import torch
        from transformers.optimization import get_scheduler

        self.number, self.job, self.adapter, self.examples = number, job, adapter, examples
        self._tensors, self._one_prompt, self._processes = tensors, one_prompt, processes
        settings = job.settings
        order = training_order(len(examples), job.epochs, job.seed, job.method)
        self._steps = [
            order[at : at + settings.batch_size] for at in range(0, len(order), settings.batch_size)
        ]
        self.updates = -(-len(self._steps) // settings.accumulation)
        self.weights = torch.nn.Parameter(start.clone())
        self.gradient = self.weights.grad = torch.zeros_like(start)
        self._optimizer = make_optimizer(
            settings.optimizer, self.weights, settings.learning_rate, settings.weight_decay
        )
        schedule = get_scheduler(
            SCHEDULES[settings.schedule],
            self._optimizer,
            num_warmup_steps=warmup_updates(settings.warmup, self.updates),
            num_training_steps=self.updates,
        )
        self._rate = schedule.lr_lambdas[0]
        # A float16 gradient may overflow: the update is then left out and the scale lowered.
        self._scaler = torch.amp.GradScaler(start.device.type, enabled=dtype == "float16")
        self._rated = 0
        self.log: list[dict[str, float]] = []
        self._started, self._seconds_before = time.monotonic(), 0.0
        self.reference = torch.zeros(len(examples), 2, device=start.device)

    @property
    def update(self) -> int:
        """Updates done."""
        return len(self.log)

    @property
    def is_done(self) -> bool:
        return self.update >= self.updates

    def seconds(self) -> float:
        """Seconds of training so far, those before a resume included."""
        return self._seconds_before + time.monotonic() - self._started

    def blocks_of_first_epoch(self) -> list[Block]:
        """Every example at least once, in the blocks that training has it in first."""
        return [
            self._block(step)
            for step in self._steps[: -(-len(self.examples) // self.job.settings.batch_size)]
        ]

    def blocks_of_next_update(self) -> list[Block]:
        each = self.job.settings.accumulation
        return [self._block(step) for step in self._steps[self.update * each : (self.update + 1) * each]]

    def _block(self, step: Sequence[int]) -> Block:
        return Block(self.number, tuple(step), tuple(self.examples[i] for i in step), self._one_prompt)

    def keep_reference(self, block: Block, chosen: "Tensor", rejected: "Tensor") -> None:
        """The reference's log-probabilities of the completions of `block`, [pairs] each."""
        import torch

        self.reference[list(block.numbers)] = torch.stack([chosen, rejected], 1)

    def loss(self, block: Block, chosen: "Tensor", rejected: "Tensor", steps: int) -> "tuple[Tensor, Tensor]":
        """What to run backward from, for one of the `steps` steps of an update; and its share in [loss, reward margin, reward accuracy].

        The loss is the mean over the pairs of `sparta.training.losses.sigmoid_loss`, or of `square_loss` if the job has an eta.
        """
        import torch

        ratios = torch.stack([chosen, rejected], 1) - self.reference[list(block.numbers)]
        beta, eta = self.job.settings.beta, self.job.eta
        if eta is None:
            losses = sigmoid_loss(ratios[:, 0], ratios[:, 1], beta)
        else:
            rated = [pair.rates for pair in block.pairs if isinstance(pair, RatedExample)]
            assert len(rated) == len(block.pairs), "the square loss needs win rates"
            losses = square_loss(ratios[:, 0], ratios[:, 1], torch.tensor(rated, device=ratios.device), eta)
        loss = losses.mean() / steps
        margins = beta * (ratios[:, 0] - ratios[:, 1])
        shares = torch.stack([loss, margins.mean() / steps, (margins > 0).float().mean() / steps])
        return self._scaler.scale(loss), shares.detach()

    def gradient_norm(self) -> "Tensor":
        """The norm of the update's gradient, which is clipped."""
        import torch

        self._scaler.unscale_(self._optimizer)
        return torch.nn.utils.clip_grad_norm_([self.weights], self.job.settings.max_grad_norm)

    def learn(self, loss: float, norm: float, margin: float, accuracy: float) -> None:
        """One update by `gradient`, which is empty afterwards. Raises SpartaError where loss or gradient are not finite."""
        if not math.isfinite(loss):
            self._diverged("loss", loss, self.update + 1)
        if not self._scaler.is_enabled() and not math.isfinite(norm):
            self._diverged("gradient", norm, self.update + 1)
        rate = self.job.settings.learning_rate * self._rate(self._rated)
        self._optimizer.param_groups[0]["lr"] = rate
        scale = self._scaler.get_scale()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._rated += self._scaler.get_scale() >= scale
        self.gradient.zero_()
        self.log.append(
            {
                "update": self.update + 1,
                "loss": loss,
                "grad_norm": norm,
                "learning_rate": rate,
                "seconds": self.seconds(),
                "reward_margin": margin,
                "reward_accuracy": accuracy,
                **({"checkpointing": 1.0} if self.job.settings.gradient_checkpointing is True else {}),
                **({"processes": float(self._processes)} if self._processes > 1 else {}),
            }
        )

    def weights_file(self) -> bytes:
        """The trained adapter as a safetensors file, tensors named as in the one it started from; SpartaError where one is not finite."""
        from safetensors.torch import save

        tensors = self._tensors.named(self.weights.detach().cpu())
        for name, tensor in tensors.items():
            if not tensor.isfinite().all():
                self._diverged(f"weight {name}", math.nan, self.update)
        # Tensors that share memory are not saved.
        return bytes(
            save({name: tensor.clone() for name, tensor in tensors.items()}, metadata={"format": "pt"})
        )

    def save(self) -> None:
        """A checkpoint of the update just done; the oldest beyond KEPT goes."""
        from safetensors.torch import save

        checkpoint = self.job.work / f"checkpoint-{self.update}"
        moments, steps = saved_state(self._optimizer, self.weights)
        with files.os_errors_named(checkpoint):
            checkpoint.mkdir(parents=True, exist_ok=True)
            (checkpoint / CONFIG).write_bytes(self.adapter.config_bytes())
            (checkpoint / WEIGHTS).write_bytes(self.weights_file())
            (checkpoint / OPTIMIZER).write_bytes(save(moments))
            kept = {
                "log": self.log,
                "rated": self._rated,
                "steps": steps,
                "scaler": self._scaler.state_dict(),
            }
            (checkpoint / STATE).write_bytes(files.encode_json(kept))
        seal(checkpoint)
        for older in checkpoints_in(self.job.work)[:-KEPT]:
            files.remove(older)

    def resume(self, checkpoint: Path) -> None:
        """Go on from `checkpoint`, which is sealed."""
        import torch
        from safetensors.torch import load_file

        with torch.no_grad():
            self.weights.copy_(self._tensors.flat(load_file(checkpoint / WEIGHTS)))
        kept = files.read_json(checkpoint / STATE, dict)
        self.log = kept["log"]
        self._rated = kept["rated"]
        restore_state(self._optimizer, self.weights, load_file(checkpoint / OPTIMIZER), kept["steps"])
        if kept["scaler"]:
            self._scaler.load_state_dict(kept["scaler"])
        self._seconds_before = self.log[-1]["seconds"]

    def _diverged(self, what: str, value: float, update: int) -> None:
        raise SpartaError(diverged(self.job, what, value, update, self.updates))


def diverged(job: Any, what: str, value: float, update: int, updates: int) -> str:
    """What to say where a number of a training is not finite."""
    return (
        f"{job.method} of {job.model} diverged: its {what} is {value} in update {update} of {updates}; "
        f"nothing was committed. Lower {job.section}.learning_rate, or set engine.dtype to float32 or bfloat16 if it is float16."
    )

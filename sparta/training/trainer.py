"""TRL's trainers as this project needs them: token ids in, adapter and log out, and nothing sent, printed or re-tokenised on the way."""

import errno
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparta.errors import SpartaError
from sparta.store import files
from sparta.training import preemption
from sparta.training.adapter_folder import CONFIG, WEIGHTS, StartingAdapter
from sparta.training.checkpoints import seal
from sparta.training.job import AnyJob, Progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_WRITER = ("iostream error", "inline_container", "PytorchStreamWriter")
"""In the messages of PyTorch's file writer."""


@cache
def trainer_class(parent: Any) -> Any:
    """The subclass of `parent`, TRL's DPOTrainer or SFTTrainer, which is given because importing TRL takes seconds.

    Its constructor takes, besides the parent's, `job`, `adapter` (the StartingAdapter) and `progress`.
    """
    from transformers import PrinterCallback

    class AdapterTrainer(parent):  # type: ignore[misc]
        def __init__(
            self, *, job: AnyJob, adapter: StartingAdapter, progress: Progress, **keywords: Any
        ) -> None:
            self.job = job
            self.starting_adapter = adapter
            self.progress = progress
            self.started = time.monotonic()
            self.seconds_before: float | None = None
            super().__init__(**keywords)
            self.remove_callback(PrinterCallback)
            if self.args.use_cpu:
                # Called once, before there is anything to free, it collects garbage for longer than a small job trains.
                self.accelerator.free_memory = lambda *objects: objects

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            """The dataset as it is: TRL would render and tokenise text, and add an end-of-sequence token."""
            return dataset

        def _send_telemetry(self) -> None:
            """Nothing: compute nodes have no network, and nobody agreed to it."""

        def create_model_card(self, *_: Any, **__: Any) -> None:
            """Nothing: an adapter folder of the state holds no prose."""

        def floating_point_ops(self, inputs: Any) -> int:
            """0: not reported, and counting walks over all parameters in every step."""
            return 0

        def compute_loss(self, *arguments: Any, **keywords: Any) -> Any:
            loss = super().compute_loss(*arguments, **keywords)
            if not math.isfinite(loss.item()):
                self._diverged("loss", loss.item(), self.state.global_step + 1)
            return loss

        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            """Adds seconds of training to the record, those before a resume included, and tells the job's owner.

            Called when an update is complete, and before checkpoints are written: one is, if the process is to go.
            """
            if "loss" not in logs:
                return
            logs["seconds"] = self.seconds()
            super().log(logs, start_time)
            # A float16 gradient may overflow: the scaler then skips the update and lowers its factor.
            if not self.args.fp16 and not math.isfinite(logs.get("grad_norm", 0.0)):
                self._diverged("gradient", logs["grad_norm"], self.state.global_step)
            self.progress(self.state.global_step, self.state.max_steps, logs["loss"])
            if preemption.requested():
                self.control.should_save = True

        def seconds(self) -> float:
            """Seconds of training so far, those before a resume included."""
            if self.seconds_before is None:
                history = self.state.log_history
                self.seconds_before = history[-1]["seconds"] if history else 0.0
            return self.seconds_before + time.monotonic() - self.started

        def weights_file(self) -> bytes:
            """The trained adapter as a safetensors file, tensors named as in the one it started from; SpartaError where one is not finite."""
            from peft import get_peft_model_state_dict
            from safetensors.torch import save

            model = self.accelerator.unwrap_model(self.model)
            tensors = get_peft_model_state_dict(model, adapter_name="default", save_embedding_layers=False)
            for name, tensor in tensors.items():
                if not tensor.isfinite().all():
                    self._diverged(f"weight {name}", math.nan, self.state.global_step)
            host = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            return bytes(save(host, metadata={"format": "pt"}))

        def take_off(self) -> None:
            """Leave the base as it was before the adapter was put on it; the trainer is of no more use."""
            base = self.accelerator.unwrap_model(self.model).unload()
            base.gradient_checkpointing_disable()
            base.disable_input_require_grads()
            # TRL gives the base a forward pass of its own.
            vars(base).pop("forward", None)

        def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
            """The trained adapter alone.

            Saved the usual way the frozen reference of DPO would lie in `ref/` beside it, and the loader of transformers 5.19, finding sub-folders,
            loads only those: step and optimizer go on, the trained weights are lost without a word.
            """
            folder = Path(output_dir or str(self.args.output_dir))
            with files.os_errors_named(folder):
                folder.mkdir(parents=True, exist_ok=True)
                (folder / CONFIG).write_bytes(self.starting_adapter.config_bytes())
                (folder / WEIGHTS).write_bytes(self.weights_file())

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            checkpoint = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
            with _writing(checkpoint):
                super()._save_checkpoint(model, trial)
            seal(checkpoint)
            preemption.stop_here()

        def _diverged(self, what: str, value: float, update: int) -> None:
            raise SpartaError(
                f"{self.job.method} of {self.job.model} diverged: its {what} is {value} in update {update} of {self.state.max_steps}; "
                f"nothing was committed. Lower {self.job.section}.learning_rate, or set engine.dtype to float32 or bfloat16 if it is float16."
            )

    return AdapterTrainer


@contextmanager
def _writing(checkpoint: Path) -> Iterator[None]:
    """`files.os_errors_named`, which also knows the RuntimeError that torch.save makes of a failed write."""
    with files.os_errors_named(checkpoint):
        try:
            yield
        except RuntimeError as error:
            if not any(part in str(error) for part in _WRITER):
                raise
            # PyTorch loses the errno on the way; a file that could be opened and not be written to means a full disk or quota.
            number = errno.EIO if "open file failed" in str(error) else errno.ENOSPC
            raise OSError(number, str(error)) from error


def placeholder_tokenizer(pad_id: int) -> "PreTrainedTokenizerBase":
    """A tokenizer that knows its padding token and no other: TRL's trainers want one, and examples that are ids have no use for it."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"<pad>": pad_id}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>")  # type: ignore[no-untyped-call]

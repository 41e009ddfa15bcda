"""What a training job is given and what it reports. Values only: importing this costs nothing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sparta.recipe import Dpo

Progress = Callable[[int, int, float | None], None]
"""Called after every weight update with (update, total updates, loss in nats). What it raises ends the job, which can be resumed."""


def silent(update: int, total: int, loss: float | None) -> None:
    """The `Progress` of a caller who does not look."""


@dataclass(frozen=True)
class Example:
    """A preference pair in token ids, exactly as they were seen and sampled: an end-of-sequence token is here only if it was produced."""

    prompt_ids: tuple[int, ...]
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]

    @property
    def length(self) -> int:
        """Tokens of the longer side, prompt included."""
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))

    @property
    def tokens(self) -> int:
        """Tokens of both sides, the prompt counted with each."""
        return 2 * len(self.prompt_ids) + len(self.chosen_ids) + len(self.rejected_ids)


@dataclass(frozen=True)
class TrainingJob:
    """One model's DPO in one iteration.

    model: its name in the pool, for messages. base: a folder, or a hub id. adapter: PEFT folder of M^{t-1}, from which training starts
    and which is the reference. out: folder that appears, whole, when the job is done. work: private folder of this job for checkpoints;
    what lies there is resumed from if it belongs to this job, thrown away if not, and the folder is gone when the job is done.
    dtype: auto, float32, bfloat16 or float16, of the base. device: auto, cpu or cuda.
    """

    model: str
    base: str
    adapter: Path
    examples: tuple[Example, ...]
    out: Path
    work: Path
    settings: Dpo
    dtype: str
    device: str
    seed: int
    trust_remote_code: bool = False


@dataclass(frozen=True)
class TrainingReport:
    """What came of a job.

    pairs: used. dropped: too long for `dpo.max_length`, or with an empty completion. steps: weight updates. first_loss, mean_loss: nats,
    None without steps. tokens: trained on, both sides of every pair, all epochs. seconds: of training, what a resumed job had spent before
    its checkpoint included.
    """

    pairs: int
    dropped: int
    steps: int
    first_loss: float | None
    mean_loss: float | None
    tokens: int
    seconds: float


def usable(examples: Sequence[Example], max_length: int) -> tuple[Example, ...]:
    """The examples that can be trained on whole: a completion on both sides, and neither side longer than `max_length` tokens.

    A pair that is cut teaches the cut, and one without a completion token gives a loss that is not a number.
    """
    return tuple(
        example
        for example in examples
        if example.chosen_ids and example.rejected_ids and example.length <= max_length
    )

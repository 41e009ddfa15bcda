"""What a training job is given and what it reports. Values only: importing this costs nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from sparta.errors import SpartaError
from sparta.recipes.pool import Sft
from sparta.recipes.schema import Dpo

Progress = Callable[[int, int, float | None], None]
"""Called after every weight update with (update, total updates, loss in nats). What it raises ends the job, which can be resumed."""


def silent(update: int, total: int, loss: float | None) -> None:
    """The `Progress` of a caller who does not look."""


@dataclass(frozen=True)
class PreferenceExample:
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

    @property
    def highest(self) -> int:
        """The highest token id."""
        return max(self.prompt_ids + self.chosen_ids + self.rejected_ids)


@dataclass(frozen=True)
class RatedExample(PreferenceExample):
    """A preference pair for the square loss. rates: the win rates of chosen and rejected, from 0 to 1."""

    rates: tuple[float, float]


@dataclass(frozen=True)
class SftExample:
    """A chat in token ids. is_target: for each of them whether it is an answer's, which the loss is on, or context."""

    token_ids: tuple[int, ...]
    is_target: tuple[bool, ...]

    @property
    def length(self) -> int:
        """Tokens."""
        return len(self.token_ids)

    @property
    def targets(self) -> int:
        """Tokens that the loss is on: target tokens with a token before them to be predicted from."""
        return sum(self.is_target[1:])

    @property
    def highest(self) -> int:
        """The highest token id."""
        return max(self.token_ids)


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What every training of one adapter is given.

    model: its name in the pool, for messages. base: the folder of its base. adapter: PEFT folder from which training starts. out: folder
    that appears, whole, when the job is done. work: private folder of this job for checkpoints; what lies there is resumed from if it
    belongs to this job, thrown away if not, and the folder is gone when the job is done. settings: gradient_checkpointing is on if it is true; who
    makes the job settles auto. dtype: auto, float32, bfloat16 or float16, of
    the base. device: auto, cpu or cuda. threads: of torch on a CPU; None: as is fastest. quantize, attention: of the base, as in the recipe's engine
    section. `method`, `section` of the recipe and `unit` of data are for messages.
    """

    method: ClassVar[str]
    section: ClassVar[str]
    unit: ClassVar[str]

    model: str
    base: str
    adapter: Path
    out: Path
    work: Path
    dtype: str
    device: str
    seed: int
    trust_remote_code: bool = False
    threads: int | None = None
    quantize: str | None = None
    attention: str = "auto"


@dataclass(frozen=True, kw_only=True)
class TrainingJob(_Job):
    """One model's DPO in one iteration; `adapter` is that of M^{t-1}, and the reference."""

    method: ClassVar[str] = "DPO"
    section: ClassVar[str] = "dpo"
    unit: ClassVar[str] = "preference pair"

    examples: tuple[PreferenceExample, ...]
    settings: Dpo
    eta: float | None = None
    """Train by the square loss of SPPO with this eta, on examples of type RatedExample; None: by DPO's sigmoid loss."""

    @property
    def epochs(self) -> int:
        return self.settings.epochs


@dataclass(frozen=True, kw_only=True)
class SftJob(_Job):
    """One expert's training from data; `adapter` is a new one."""

    method: ClassVar[str] = "SFT"
    section: ClassVar[str] = "pool.sft"
    unit: ClassVar[str] = "row"

    examples: tuple[SftExample, ...]
    settings: Sft
    epochs: int


AnyJob = TrainingJob | SftJob
"""What is done in the same way for both."""


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


@dataclass(frozen=True)
class SftReport:
    """What came of an expert's training.

    used: rows. dropped: rows longer than `pool.sft.max_length`, or without a target token. steps: weight updates. first_loss, mean_loss, last_loss:
    of the updates, in nats a target token; None where nothing was trained. tokens: trained on, all epochs. taught: those of them that the
    loss is on. seconds: as in `TrainingReport`.
    """

    used: int
    dropped: int
    steps: int
    first_loss: float | None
    mean_loss: float | None
    last_loss: float | None
    tokens: int
    taught: int
    seconds: float


def usable_pairs(job: TrainingJob) -> tuple[PreferenceExample, ...]:
    """The pairs of `job` that can be trained on whole: a completion on both sides, and neither side longer than `dpo.max_length` tokens.

    A pair that is cut teaches the cut, and one without a completion token gives a loss that is not a number.
    """
    return tuple(
        example
        for example in job.examples
        if example.chosen_ids and example.rejected_ids and example.length <= job.settings.max_length
    )


def usable_rows(job: SftJob) -> tuple[SftExample, ...]:
    """The rows of `job` that can be learnt from whole: no longer than `pool.sft.max_length` tokens, one of them a target.

    Raises SpartaError where there is none: an expert without data is no expert.
    """
    fitting = [row for row in job.examples if row.length <= job.settings.max_length]
    rows = tuple(row for row in fitting if row.targets)
    if not rows:
        long = len(job.examples) - len(fitting)
        raise SpartaError(
            f"There is nothing that {job.model} could be trained on: of the {len(job.examples)} rows of its data (pool.models, "
            f"{job.model}, sft.data) {long} are longer than pool.sft.max_length, {job.settings.max_length} tokens, and {len(fitting)} hold no "
            "answer; name other data, or raise pool.sft.max_length."
        )
    return rows

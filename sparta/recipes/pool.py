"""The pool of a recipe: its members M^0, and how those that do not exist yet are made."""

import re
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from sparta.arena.rules import Rules
from sparta.errors import SpartaError
from sparta.names import MODELS, check_model_name, suggested
from sparta.recipes.engine import HOW

HUB = "hub:"
EMBEDDED = "embedded:"
FETCH = (
    f"run {suggested('init_pool', '--recipe', 'R', '--fetch')} where there is a network, R being this recipe"
)
"""What to do about a model of the hub that is not here, for the end of a sentence."""
_ON_THE_HUB = re.compile(r"hub:(\w[\w.-]*/\w[\w.-]*)(?:@([\w./-]+))?")


class Lora(Rules):
    """The shape of the adapters that this suite makes: of experts trained from data, and of full models. Adapters that exist keep theirs."""

    rank: int = Field(default=16, ge=1, description="of the low-rank matrices")
    alpha: float = Field(default=32.0, gt=0, description="an adapter's effect is scaled by alpha / rank")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="in supervised training; DPO has none")
    targets: tuple[str, ...] = Field(
        default=(), description="names of linear modules, as q_proj; none: all of them but the output"
    )


class Sft(Rules):
    """How experts are trained from data (C.3 of the paper): one LoRA adapter each, loss on the assistant's turns alone."""

    learning_rate: float = Field(default=2e-4, gt=0, description="at its peak, after the warm-up")
    epochs: int = Field(default=5, ge=1, description="passes over the rows")
    batch_size: int = Field(default=4, ge=1, description="rows a step on the device")
    accumulation: int = Field(
        default=8, ge=1, description="steps a weight update: with batch_size the effective batch, 32"
    )
    schedule: Literal["cosine", "linear", "constant"] = Field(
        default="cosine", description="how the learning rate falls after the warm-up"
    )
    warmup: float = Field(
        default=0.1, ge=0, lt=1, description="share of the updates in which the learning rate rises"
    )
    weight_decay: float = Field(default=0.0, ge=0, description="of AdamW")
    max_grad_norm: float = Field(default=1.0, gt=0, description="gradients are clipped to this norm")
    max_length: int = Field(
        default=2048, ge=8, description="tokens; a longer row is dropped and counted, never cut"
    )
    packing: bool | None = Field(
        default=None,
        description="rows of a step one behind the other instead of padded, each seeing itself alone; null: where it pays",
    )
    gradient_checkpointing: bool = Field(
        default=True, description="recompute activations in the backward pass: less memory, more time"
    )
    save_updates: int = Field(
        default=100,
        ge=1,
        description="weight updates between two checkpoints to resume from",
        json_schema_extra=HOW,
    )


class SftData(Rules):
    """What an expert is trained on."""

    data: str = Field(
        description="a subset that the command prepare_data prepares, embedded:NAME, or a JSONL file with `messages`, or `prompt` and `reference`"
    )
    epochs: int | None = Field(default=None, ge=1, description="null: pool.sft.epochs")
    size: int | None = Field(default=None, ge=1, description="use so many rows, drawn by seed; null: all")

    @property
    def is_prepared(self) -> bool:
        """Whether it is a subset, which lies where data.folder says."""
        return not self.data.startswith(EMBEDDED) and not is_sft_file(self.data)


class Model(Rules):
    """One member of the pool: a base, and on it the LoRA adapter that learns.

    The adapter exists (`adapter`), is trained from data (`sft`), or is that of another member (`copy_of`); a full model has none of them, and learns
    in a new one, at first without effect.
    """

    name: str = Field(
        description="letters, digits, '.', '_' and '-', at most 64; it becomes part of file names"
    )
    base: str | None = Field(
        default=None, description="folder, hub:OWNER/NAME[@REVISION] or embedded:NAME; null: pool.base"
    )
    adapter: str | None = Field(
        default=None,
        description="PEFT folder, hub:OWNER/NAME[@REVISION] or embedded:NAME; safetensors only",
    )
    sft: SftData | None = None
    copy_of: str | None = Field(
        default=None,
        description="another member, as which this one begins, base and all; they part when they are trained",
    )

    @field_validator("name")
    @classmethod
    def _usable_as_folder(cls, name: str) -> str:
        try:
            check_model_name(name)
        except SpartaError as error:
            raise ValueError(str(error)) from None
        return name

    @field_validator("base", "adapter")
    @classmethod
    def _well_formed(cls, reference: str | None) -> str | None:
        return reference if reference is None else well_formed(reference)

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        given = [key for key in ("adapter", "sft", "copy_of") if getattr(self, key) is not None]
        if self.copy_of is not None and self.base is not None:
            given.append("base")
        if len(given) > 1:
            raise ValueError(f"model {self.name} names {' and '.join(given)}: leave all but one of them out")
        return self


class Derived(Rules):
    """A pool that is made from the one that is named, by its scores on a validation split (sections 4 and C.7 of the paper)."""

    repeat: int | None = Field(
        default=None,
        ge=1,
        description="a distinct models, each as often as keeps the size: the best, and others drawn by seed (10x1, 5x2, 2x5, 1x10)",
    )
    spread: int | None = Field(
        default=None,
        ge=3,
        description="so many models with the widest spread of scores: the first, the last, and ranks evenly between (3 of 10: 1st, 5th, 10th)",
    )
    best: bool = Field(default=False, description="the best alone, for methods that align one model")
    scores: str | None = Field(
        default=None, description="a state directory whose initial pool the command evaluate has scored"
    )
    ranking: tuple[str, ...] = Field(
        default=(), description="in place of scores: the names of all models, the best first"
    )
    task: str | None = Field(
        default=None, description="whose validation scores count; null: the task of that run"
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if [self.repeat is not None, self.spread is not None, self.best].count(True) != 1:
            raise ValueError("pool.derived names either repeat, spread or best: true")
        if (self.scores is None) == (not self.ranking):
            raise ValueError("pool.derived names either scores or a ranking")
        return self


class Pool(Rules):
    """The pool M^0. Relative paths begin with ./ or ../ and are taken from the file that names them."""

    base: str | None = Field(default=None, description="base of every model that names none")
    models: tuple[Model, ...] = ()
    lora: Lora = Lora()
    sft: Sft = Sft()
    derived: Derived | None = None
    folder: str | None = Field(
        default=None,
        description="where init_pool --fetch puts what is named hub:...; null: state/models of the checkout (of the working directory for an installed package)",
        json_schema_extra=HOW,
    )
    trust_remote_code: bool = Field(
        default=False, description="run code that a base model ships; only for bases you trust"
    )

    @field_validator("base")
    @classmethod
    def _well_formed(cls, reference: str | None) -> str | None:
        return reference if reference is None else well_formed(reference)

    @model_validator(mode="after")
    def _playable(self) -> Self:
        names = [model.name for model in self.models]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two models are named {twice[0]}: give each a name of its own")
        if not names:
            raise ValueError("the pool has no model: name some in pool.models")
        originals = {model.name: model for model in self.models if model.copy_of is None}
        for model in self.models:
            if model.copy_of is not None and model.copy_of not in originals:
                raise ValueError(
                    f"model {model.name} is to be a copy of {model.copy_of}, which is no member, or a copy itself: name one that is not"
                )
            if model.base is None and self.base is None and model.copy_of is None:
                raise ValueError(f"model {model.name} has no base: set pool.base or the model's own base")
        return self

    @property
    def experts(self) -> tuple[Model, ...]:
        """The members that are trained from data before the first iteration."""
        return tuple(model for model in self.models if model.sft is not None)

    def original(self, model: Model) -> Model:
        """The member that `model` begins as: itself, for most."""
        return next((other for other in self.models if other.name == model.copy_of), model)

    def base_of(self, model: Model) -> str:
        return self.original(model).base or self.base or ""

    @property
    def references(self) -> tuple[str | None, ...]:
        """What bases and adapters are called, in the order in which they are named; None where one is not."""
        own = (reference for model in self.models for reference in (model.base, model.adapter))
        return self.base, *own


def is_sft_file(data: object) -> bool:
    """Whether sft.data names a file: a subset's name is neither a path nor has it an ending."""
    return (
        isinstance(data, str) and not data.startswith(EMBEDDED) and ("/" in data or Path(data).suffix != "")
    )


def well_formed(reference: str) -> str:
    """`reference` as it is. Raises ValueError where it begins like one of the hub and is none."""
    if reference.startswith(HUB) and not _ON_THE_HUB.fullmatch(reference):
        raise ValueError(
            f"{reference} is no model of the hub: write hub:OWNER/NAME or hub:OWNER/NAME@REVISION"
        )
    return reference


def on_hub(reference: str) -> tuple[str, str | None]:
    """Repository (OWNER/NAME) and revision of `hub:OWNER/NAME[@REVISION]`; the revision is None where none is named."""
    found = _ON_THE_HUB.fullmatch(well_formed(reference))
    if found is None:
        raise ValueError(f"{reference} does not begin with {HUB}")
    return found[1], found[2]


def names_one_of_hub(text: str) -> bool:
    """Whether `text` reads OWNER/NAME, or OWNER/NAME@REVISION: as a model of the hub, but for what marks it as one."""
    return _ON_THE_HUB.fullmatch(HUB + text) is not None


def hub_folder(reference: str, folder: str | None) -> Path:
    """Where the files of `hub:OWNER/NAME[@REVISION]` lie once they are fetched. folder: pool.folder of the recipe; None: MODELS."""
    repository, revision = on_hub(reference)
    # An @ is in no revision, so that refs/pr/1 and refs_pr_1 are two.
    version = f"@{revision.replace('/', '@')}" if revision else ""
    return (Path(folder) if folder else MODELS) / f"{repository}{version}"

"""The recipe section for the pool: its members M^0, and how experts are trained."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from sparta.arena.rules import Rules
from sparta.errors import SpartaError
from sparta.names import MODELS, check_model_name, suggested
from sparta.recipes.engine import HOW, how_by_now

HUB = "hub:"
EMBEDDED = "embedded:"
FETCH = (
    f"run {suggested('init_pool', '--recipe', 'R', '--fetch')} where there is a network, R being this recipe"
)
"""The remedy for a hub model that is not on disk, for the end of an error message."""


def _auto_or_not(given: Any) -> Any:
    if given != "auto" and not isinstance(given, bool):
        raise ValueError(f"is auto, true or false, not {given!r}")
    return given


Checkpointing = Annotated[Literal["auto"] | bool, BeforeValidator(_auto_or_not)]
"""Gradient checkpointing."""
Optimizer = Literal["adamw", "adamw_8bit", "paged_adamw_8bit"]
OPTIMIZERS = (
    "adamw_8bit: its moments in 8 bits (bitsandbytes), which saves a third of what an adapter's training takes; paged_adamw_8bit: these move to "
    "the machine's memory when the GPU's is full, needs a GPU"
)
_ON_THE_HUB = re.compile(r"hub:(\w[\w.-]*/\w[\w.-]*)(?:@([\w./-]+))?")


class Lora(Rules):
    """The shape of new adapters: of experts trained from data, and of full models. Existing adapters keep their shape."""

    rank: int = Field(default=16, ge=1, description="rank of the low-rank matrices")
    alpha: float = Field(default=32.0, gt=0, description="an adapter's effect is scaled by alpha / rank")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="in supervised training; DPO has none")
    targets: tuple[str, ...] = Field(
        default=(),
        description="names of linear modules, such as q_proj; empty: all linear modules except the output",
    )


class Sft(Rules):
    """How experts are trained from data (C.3 of the paper): one LoRA adapter each, loss only on the assistant's turns."""

    learning_rate: float = Field(default=2e-4, gt=0, description="peak learning rate, after the warm-up")
    epochs: int = Field(default=5, ge=1, description="passes over the rows")
    batch_size: int = Field(default=4, ge=1, description="rows per step on the device")
    accumulation: int = Field(
        default=8,
        ge=1,
        description="steps per weight update; batch_size times accumulation is the effective batch, 32",
    )
    schedule: Literal["cosine", "linear", "constant"] = Field(
        default="cosine", description="decay of the learning rate after the warm-up"
    )
    warmup: float = Field(default=0.1, ge=0, lt=1, description="share of the updates for the warm-up")
    optimizer: Optimizer = Field(default="adamw", description=OPTIMIZERS)
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW weight decay")
    max_grad_norm: float = Field(default=1.0, gt=0, description="gradients are clipped to this norm")
    max_length: int = Field(
        default=2048, ge=8, description="tokens; a longer row is dropped and counted, never truncated"
    )
    packing: bool | None = Field(
        default=None,
        description="concatenate the rows of a step instead of padding them; rows do not attend to each other; null: if it saves time",
    )
    gradient_checkpointing: Checkpointing = Field(
        default="auto",
        description="recompute activations in the backward pass: less memory, more time. auto: only where the rows do not fit a GPU's memory without it",
        json_schema_extra=how_by_now(False),
    )
    save_updates: int = Field(
        default=100,
        ge=1,
        description="weight updates between checkpoints for resuming",
        json_schema_extra=HOW,
    )


class SftData(Rules):
    """The training data of an expert."""

    data: str = Field(
        description="a subset prepared by the command prepare_data, embedded:NAME, or a JSONL file with `messages`, or `prompt` and `reference`"
    )
    epochs: int | None = Field(default=None, ge=1, description="null: pool.sft.epochs")
    size: int | None = Field(
        default=None, ge=1, description="number of rows to use, drawn by seed; null: all"
    )

    @property
    def is_prepared(self) -> bool:
        """Whether it is a prepared subset, stored in data.folder."""
        return not self.data.startswith(EMBEDDED) and not is_sft_file(self.data)


class Model(Rules):
    """One member of the pool: a base and a LoRA adapter, which is trained.

    The adapter exists already (`adapter`), is trained from data (`sft`), or is a copy of another member's (`copy_of`). A full model has
    none of these keys; it gets a new adapter that has no effect at first.
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
        description="another member whose base and adapter this one starts with; training makes them differ",
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
            raise ValueError(f"model {self.name} names {' and '.join(given)}: keep only one of them")
        return self


class Derived(Rules):
    """A pool derived from the named models by their scores on a validation split (sections 4 and C.7 of the paper)."""

    repeat: int | None = Field(
        default=None,
        ge=1,
        description="the number of distinct models; each is repeated so that the pool keeps its size: the best, and others drawn by seed (10x1, 5x2, 2x5, 1x10)",
    )
    spread: int | None = Field(
        default=None,
        ge=3,
        description="the number of models, chosen for the widest spread of scores: the first, the last, and evenly spaced ranks between (3 of 10: 1st, 5th, 10th)",
    )
    best: bool = Field(default=False, description="only the best model, for methods that align one model")
    scores: str | None = Field(
        default=None, description="a state directory whose initial pool the command evaluate has scored"
    )
    ranking: tuple[str, ...] = Field(
        default=(), description="instead of scores: the names of all models, best first"
    )
    task: str | None = Field(
        default=None, description="the task whose validation scores count; null: the task of that run"
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if [self.repeat is not None, self.spread is not None, self.best].count(True) != 1:
            raise ValueError(
                "pool.derived needs either repeat, spread or best: true: set exactly one of them"
            )
        if (self.scores is None) == (not self.ranking):
            raise ValueError("pool.derived needs either scores or ranking: set exactly one of them")
        return self


class Pool(Rules):
    """The pool M^0. Relative paths begin with ./ or ../ and start at the folder of the file that names them."""

    base: str | None = Field(default=None, description="base of every model without its own")
    models: tuple[Model, ...] = ()
    lora: Lora = Lora()
    sft: Sft = Sft()
    derived: Derived | None = None
    folder: str | None = Field(
        default=None,
        description="where init_pool --fetch stores hub:... models; null: state/models of the checkout (for an installed package, of the working directory)",
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
            raise ValueError(f"two models are named {twice[0]}: give them different names")
        if not names:
            raise ValueError("the pool has no model: add models to pool.models")
        originals = {model.name: model for model in self.models if model.copy_of is None}
        for model in self.models:
            if model.copy_of is not None and model.copy_of not in originals:
                raise ValueError(
                    f"model {model.name} cannot be a copy of {model.copy_of}, which is not a member of the pool or is itself a copy: name a member "
                    "without copy_of"
                )
            if model.base is None and self.base is None and model.copy_of is None:
                raise ValueError(f"model {model.name} has no base: set pool.base or the model's own base")
        return self

    @property
    def experts(self) -> tuple[Model, ...]:
        """The members that are trained from data before the first iteration."""
        return tuple(model for model in self.models if model.sft is not None)

    def original(self, model: Model) -> Model:
        """The member that `model` is a copy of; `model` itself if it is no copy."""
        return next((other for other in self.models if other.name == model.copy_of), model)

    def base_of(self, model: Model) -> str:
        return self.original(model).base or self.base or ""

    @property
    def references(self) -> tuple[str | None, ...]:
        """All references to bases and adapters, in the order of the recipe; None where one is left out."""
        own = (reference for model in self.models for reference in (model.base, model.adapter))
        return self.base, *own


def is_sft_file(data: object) -> bool:
    """Whether sft.data names a file: it has a slash or a file extension, unlike the name of a subset."""
    return (
        isinstance(data, str) and not data.startswith(EMBEDDED) and ("/" in data or Path(data).suffix != "")
    )


def well_formed(reference: str) -> str:
    """`reference` unchanged. Raises ValueError if it begins with hub: and is malformed."""
    if reference.startswith(HUB) and not _ON_THE_HUB.fullmatch(reference):
        raise ValueError(
            f"{reference} is not a valid hub reference: write hub:OWNER/NAME or hub:OWNER/NAME@REVISION"
        )
    return reference


def on_hub(reference: str) -> tuple[str, str | None]:
    """Repository (OWNER/NAME) and revision of `hub:OWNER/NAME[@REVISION]`; the revision is None if it is left out."""
    found = _ON_THE_HUB.fullmatch(well_formed(reference))
    if found is None:
        raise ValueError(f"{reference} does not begin with {HUB}")
    return found[1], found[2]


def names_one_of_hub(text: str) -> bool:
    """Whether `text` is OWNER/NAME or OWNER/NAME@REVISION: a hub reference without its prefix."""
    return _ON_THE_HUB.fullmatch(HUB + text) is not None


def hub_folder(reference: str, folder: str | None) -> Path:
    """The folder of the fetched files of `hub:OWNER/NAME[@REVISION]`. folder: pool.folder of the recipe; None: MODELS."""
    repository, revision = on_hub(reference)
    # No revision contains @, so refs/pr/1 and refs_pr_1 get different folders.
    version = f"@{revision.replace('/', '@')}" if revision else ""
    return (Path(folder) if folder else MODELS) / f"{repository}{version}"

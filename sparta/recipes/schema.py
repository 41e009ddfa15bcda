"""The recipe: the whole configuration of a run, typed, bounded and documented.

The defaults are the paper's (arXiv 2506.04721, sections 3 and C.2-C.5). Unknown keys are refused. The complete recipe is stored in the
state. Its `identity` (everything that could change a result, and nothing else) decides whether a later launch continues the same run.
Files and `--set` are read in load.py.
"""

import hashlib
import json
from typing import Any, Literal, Self

import yaml
from pydantic import Field, field_validator, model_validator

from sparta.arena.rules import (
    MatchMaking,
    Preferences,
    Reputation,
    Reweighting,
    Rules,
    earlier,
    filled_elsewhere,
    overlay,
)
from sparta.names import DATASETS, MODELS
from sparta.recipes.baseline import Baseline
from sparta.recipes.chat import ChatSettings
from sparta.recipes.cluster import Cluster
from sparta.recipes.data import Data
from sparta.recipes.engine import HOTTEST, HOW, VLLM_HOTTEST, EngineSettings, how_by_now
from sparta.recipes.identity import flat, identities_of_earlier_versions, identity_of
from sparta.recipes.pool import HUB, OPTIMIZERS, Checkpointing, Optimizer, Pool, well_formed


class Generation(Rules):
    """How contestants answer (section 3)."""

    temperature: float = Field(default=0.7, ge=0, le=HOTTEST, description="sampling temperature; 0: greedy")
    top_p: float = Field(
        default=0.95,
        gt=0,
        le=1,
        description="sample from the most likely tokens of this total probability; 1: off",
    )
    top_k: int = Field(default=50, ge=0, description="sample from this many most likely tokens; 0: off")
    max_new_tokens: int = Field(default=512, ge=1, description="maximum length of a response, in tokens")


class Judging(Rules):
    """How judges vote (section 2, appendix D)."""

    mode: Literal["text", "expected"] = Field(
        default="text",
        description="text: the judge writes a score; expected: the mean over single-token labels",
    )
    constrained: bool = Field(
        default=True,
        description="text: guided decoding of the JSON schema; false: free text, parsed strictly",
    )
    working: bool = Field(default=False, description="let the judge write its own answer on one line first")
    labels: tuple[str, ...] = Field(
        default=tuple("0123456789"), min_length=2, description="expected: single-token labels, worst first"
    )
    temperature: float = Field(default=0.7, ge=0, le=HOTTEST, description="sampling temperature; 0: greedy")
    top_p: float = Field(
        default=0.95,
        gt=0,
        le=1,
        description="sample from the most likely tokens of this total probability; 1: off",
    )
    top_k: int = Field(default=50, ge=0, description="sample from this many most likely tokens; 0: off")
    max_new_tokens: int = Field(default=32, ge=1, description="for the reasoning line and the score together")
    retries: int = Field(default=2, ge=0, description="retries of a missing vote, each with another seed")
    equal: Literal["skip", "judge"] = Field(
        default="skip",
        description="combats with equal answers or an empty answer: skip requests no votes and leaves reputations unchanged; judge follows the "
        "paper literally: votes are requested and change reputations; authors: judge. Neither makes a preference pair",
        json_schema_extra=earlier("judge"),
    )
    max_missing: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="the merge stops when a judge's share of missing votes is above this",
        json_schema_extra=HOW,
    )


class Dpo(Rules):
    """How every model is trained on the iteration's pairs (section 3)."""

    beta: float = Field(
        default=0.1,
        gt=0,
        description="strength of the pull towards the reference, which is the model before this training",
    )
    learning_rate: float = Field(default=1e-6, gt=0, description="peak learning rate, after the warm-up")
    epochs: int = Field(default=1, ge=1, description="passes over the iteration's pairs")
    batch_size: int = Field(default=1, ge=1, description="pairs per step on the device")
    accumulation: int = Field(default=1, ge=1, description="steps per weight update")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        default="cosine", description="decay of the learning rate after the warm-up"
    )
    warmup: float = Field(default=0.1, ge=0, lt=1, description="share of the updates for the warm-up")
    optimizer: Optimizer = Field(default="adamw", description=OPTIMIZERS)
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW weight decay")
    max_grad_norm: float = Field(default=1.0, gt=0, description="gradients are clipped to this norm")
    max_length: int = Field(
        default=2048, ge=8, description="tokens, prompt and completion; a longer pair is dropped and counted"
    )
    gradient_checkpointing: Checkpointing = Field(
        default="auto",
        description="recompute activations in the backward pass: less memory, more time. auto: only where an iteration's pairs do not fit a GPU's "
        "memory without it, or where more members then fit together, if that is estimated to be faster",
        json_schema_extra=how_by_now(True),
    )
    liger: bool = Field(
        default=False,
        description="Liger's kernels for RMSNorm and SwiGLU of the base: less memory and time; needs a GPU and liger-kernel",
        json_schema_extra=HOW,
    )
    save_updates: int = Field(
        default=200,
        ge=1,
        description="weight updates between checkpoints for resuming",
        json_schema_extra=HOW,
    )


class JudgeModel(Rules):
    """The judge of an evaluation: a model outside the pool, with a separate engine. The paper uses Gemini 1.5 Flash through its endpoint."""

    base: str = Field(
        description="folder, hub:OWNER/NAME[@REVISION] or embedded:NAME; for an endpoint, the model's name there"
    )
    adapter: str | None = Field(
        default=None, description="PEFT folder, hub:OWNER/NAME[@REVISION] or embedded:NAME"
    )
    engine: EngineSettings = EngineSettings()
    chat: ChatSettings = Field(
        default=ChatSettings(), description="for this model; without a date, it uses the run's date"
    )
    max_new_tokens: int = Field(default=32, ge=1, description="maximum length of a grade, in tokens")
    retries: int = Field(
        default=2, ge=0, description="retries of a grade that cannot be read, at temperature 0.7"
    )

    @field_validator("base", "adapter")
    @classmethod
    def _well_formed(cls, reference: str | None) -> str | None:
        return reference if reference is None else well_formed(reference)

    def identity(self, version: str) -> dict[str, Any]:
        """Everything that could change a grade, as plain values, without defaults. version: identifies the adapter, independent of its path."""
        return {**identity_of(self, defaults=False), "adapter": version}


class Evaluation(Rules):
    """How checkpoints are scored."""

    tasks: tuple[str, ...] = Field(default=(), description="tasks to score on; empty: data.task, or `own`")
    validation: int | None = Field(default=None, ge=1, description="items of the validation split; null: all")
    test: int | None = Field(default=None, ge=1, description="items of the test split; null: all")
    max_new_tokens: int | None = Field(default=None, ge=1, description="null: each task's own")
    chat_template: bool | None = Field(
        default=None, description="null: each task's own (C.5 of the paper); false: the plain text"
    )
    judge: JudgeModel | None = Field(
        default=None,
        description="for metrics graded by a judge; null: these metrics are skipped, with a note",
    )
    embeddings: str | None = Field(
        default=None,
        description="the sentence-embedding model of analysis/diversity.py: a folder or hub:OWNER/NAME[@REVISION], such as the paper's "
        "hub:BAAI/bge-large-en-v1.5; null: no embedding distances",
    )

    @field_validator("embeddings")
    @classmethod
    def _well_formed(cls, reference: str | None) -> str | None:
        return reference if reference is None else well_formed(reference)


class Recipe(Rules):
    """The complete configuration of a run."""

    name: str = Field(min_length=1, description="the name of the run in tables")
    method: str = Field(
        default="sparta", min_length=1, description="how the pool is aligned: a file under sparta/methods"
    )
    seed: int = Field(default=0, ge=0, description="every random draw of the run is derived from it")
    iterations: int = Field(
        default=8, ge=1, description="T; a larger value continues a finished run", json_schema_extra=HOW
    )
    combats: int = Field(
        default=1000, ge=1, description="N, combats per iteration; prompts for methods without combats"
    )
    pool: Pool
    data: Data
    match: MatchMaking = MatchMaking()
    chat: ChatSettings = ChatSettings()
    generation: Generation = Generation()
    judging: Judging = Judging()
    reputation: Reputation = Reputation()
    reweighting: Reweighting = Reweighting()
    preferences: Preferences = Preferences()
    dpo: Dpo = Dpo()
    baseline: Baseline = Baseline()
    engine: EngineSettings = EngineSettings()
    cluster: Cluster = Field(default=Cluster(), json_schema_extra=HOW)
    evaluation: Evaluation = Field(default=Evaluation(), json_schema_extra=HOW)

    @model_validator(mode="after")
    def _endpoint_continues_nothing(self) -> Self:
        if self.engine.kind == "api" and self.judging.mode == "expected" and self.judging.working:
            raise ValueError(
                "an endpoint cannot score labels after the judge's reasoning: set judging.working to false or judging.mode to text"
            )
        return self

    @model_validator(mode="after")
    def _guesses_no_labels(self) -> Self:
        """vLLM gives no probabilities of named tokens while it guesses."""
        engine = self.engine
        guesses = engine.kind in ("auto", "vllm") and engine.vllm.speculative is not None
        if guesses and self.judging.mode == "expected":
            raise ValueError(
                "vLLM cannot score labels while it guesses tokens: set engine.vllm.speculative to null or judging.mode to text"
            )
        return self

    @model_validator(mode="after")
    def _endpoint_takes_kwargs(self) -> Self:
        judge = self.evaluation.judge
        for where, chat, engine in (
            ("", self.chat, self.engine),
            *([("evaluation.judge.", judge.chat, judge.engine)] if judge else []),
        ):
            if engine.kind == "api" and chat.template_kwargs and engine.api.dialect == "openai":
                raise ValueError(
                    f"{where}chat.template_kwargs cannot be sent to an endpoint in OpenAI's protocol: set {where}engine.api.dialect to vllm if it is "
                    "`vllm serve`, or leave them out"
                )
        return self

    @model_validator(mode="after")
    def _cool_enough(self) -> Self:
        for name, given in (("generation", self.generation), ("judging", self.judging)):
            if self.engine.kind == "vllm" and given.temperature > VLLM_HOTTEST:
                raise ValueError(
                    f"vLLM takes a temperature of at most {VLLM_HOTTEST:g}, {name}.temperature is "
                    f"{given.temperature:g}: lower it, or set engine.kind to hf"
                )
        return self

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.engine.quantize is not None and self.cluster.gpus_per_training > 1:
            raise ValueError(
                f"cluster.gpus_per_training is {self.cluster.gpus_per_training}, and a base in 4 bits (engine.quantize) is not divided over GPUs: set one "
                "of the two back"
            )
        return self

    @model_validator(mode="after")
    def _fusible(self) -> Self:
        bases = sorted({self.pool.base_of(model) for model in self.pool.models})
        if self.cluster.fused and len(bases) > 1:
            raise ValueError(
                f"cluster.fused needs one base for all models, but the pool has {len(bases)} ({', '.join(bases)}): set it to false"
            )
        return self

    @property
    def fused(self) -> bool:
        """Whether responses are generated and judged in one array of tasks (`cluster.fused`)."""
        if self.cluster.fused is not None:
            return self.cluster.fused
        kind, where = self.engine.kind, self.cluster.kind
        starts_vllm = (kind == "vllm" and where != "inline") or (kind == "auto" and where == "slurm")
        return starts_vllm and len({self.pool.base_of(model) for model in self.pool.models}) == 1

    @model_validator(mode="before")
    @classmethod
    def _fill_from_reputation(cls, given: Any) -> Any:
        """The section `reputation` sets defaults in other sections: see `filled_elsewhere`."""
        return overlay(filled_elsewhere(given.get("reputation")), given) if isinstance(given, dict) else given

    @property
    def remarks(self) -> list[str]:
        """Effects of key combinations that a user may not expect, one sentence each."""
        if not self.reputation.frozen:
            return []
        if self.reweighting.enabled:
            return [
                "reputations are frozen, so each iteration draws the judge to down-weight at random (reweighting.enabled)"
            ]
        return [
            "no judge is down-weighted (C.1): reputations are frozen, so none is the lowest; reweighting.enabled=true turns it on"
        ]

    @property
    def of_the_hub(self) -> tuple[str, ...]:
        """The distinct models named hub:OWNER/NAME[@REVISION]: bases and adapters of the pool and of the evaluation's judge, the preference model, and
        the model of sentence embeddings.
        """
        judge, preference = self.evaluation.judge, self.baseline.preference
        judging = (judge.base, judge.adapter) if judge else ()
        others = (preference.model if preference else None, self.evaluation.embeddings)
        named = (*self.pool.references, *judging, *others)
        return tuple(dict.fromkeys(name for name in named if name and name.startswith(HUB)))

    @property
    def scored_on(self) -> tuple[str, ...]:
        """The tasks that checkpoints are scored on by default; empty if the recipe has none."""
        if self.evaluation.tasks:
            return self.evaluation.tasks
        if self.data.task is not None:
            return (self.data.task,)
        return ("own",) if self.data.validation is not None else ()

    def placed(self) -> Self:
        """This recipe with pool.folder set if it names hub models, and data.folder set if experts are trained on prepared subsets.

        Jobs need both paths, and run from a copy of the code without these folders beside it.
        """
        pool, data = self.pool, self.data
        if pool.folder is None and self.of_the_hub:
            pool = pool.model_copy(update={"folder": str(MODELS)})
        if data.folder is None and any(model.sft.is_prepared for model in pool.models if model.sft):
            data = data.model_copy(update={"folder": str(DATASETS)})
        return self.model_copy(update={"pool": pool, "data": data})

    def identity(self) -> dict[str, Any]:
        """Everything that could change a result, as plain values."""
        return identity_of(self)

    @property
    def hash(self) -> str:
        """sha256 (hex) of the identity without defaults, so that a key added by a later version does not change the hash of older runs.

        For a field whose default has changed, the earlier default is left out (see `sparta.arena.rules.earlier`).
        """
        return _digest(identity_of(self, defaults=False))

    def is_hashed_as(self, known: str) -> bool:
        """Whether `known` is the hash of this recipe, by this version or by an earlier one, whose identity had more keys."""
        return known in map(_digest, identities_of_earlier_versions(self))

    def differences(self, other: Self) -> list[str]:
        """One line per value of the identity that differs in `other`: "match.k: 5, now 3"."""
        absent = object()
        mine, theirs = dict(flat(self.identity())), dict(flat(other.identity()))
        return [
            f"{key}: {mine.get(key, 'absent')}, now {theirs.get(key, 'absent')}"
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key, absent) != theirs.get(key, absent)
        ]

    def to_yaml(self) -> str:
        """The complete recipe with defaults, as stored in the state."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


def _digest(identity: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

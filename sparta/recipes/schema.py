"""The recipe: the whole configuration of a run, typed, bounded and documented.

The defaults are the paper's (arXiv 2506.04721, sections 3 and C.2-C.5). Unknown keys are refused. The full recipe is frozen into the
state, and its `identity` (everything that could change a result, and nothing else) decides whether a later launch continues the same run.
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
from sparta.names import DATASETS, MODELS, ClusterKind
from sparta.recipes.baseline import Baseline
from sparta.recipes.chat import Chat
from sparta.recipes.engine import HOW, VLLM_HOTTEST, EngineSettings
from sparta.recipes.identity import flat, identity_of
from sparta.recipes.pool import HUB, Pool, well_formed

Grading = Literal["exact", "number", "math", "letter", "likelihood", "judge"]


class Data(Rules):
    """The instructions X to align on: a task that the suite knows, or JSONL files of one's own."""

    task: str | None = Field(default=None, description="a task of sparta.tasks; its training split is X")
    folder: str | None = Field(
        default=None,
        description="where prepare_data puts the tasks' data; null: state/datasets of the checkout (of the working directory for an installed package)",
        json_schema_extra=HOW,
    )
    train: str | None = Field(
        default=None,
        description="JSONL with `prompt` (text) or `messages`, and optionally `id`, `reference`, `answer`, `choices`, `level`",
    )
    validation: str | None = Field(
        default=None,
        description="beside data.train: JSONL of the same form, to score checkpoints on (the task `own`)",
        json_schema_extra=HOW,
    )
    test: str | None = Field(
        default=None,
        description="beside data.validation: JSONL of the same form, for the chosen checkpoints alone",
        json_schema_extra=HOW,
    )
    grading: Grading = Field(
        default="exact",
        description="how answers to data.validation and data.test are graded: the same text; the same number; the same mathematics; the letter of "
        "a choice; the likelihood of choices; a judge, with the reference in view",
        json_schema_extra=HOW,
    )
    size: int | None = Field(
        default=None, ge=1, description="use the first so many instructions; null: all that there are"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.task is None) == (self.train is None):
            raise ValueError("name either data.task or data.train, not both and not neither")
        if self.task is not None and (self.validation or self.test):
            raise ValueError(
                f"data.validation and data.test belong to data.train: the task {self.task} has its own"
            )
        if self.test is not None and self.validation is None:
            raise ValueError(
                "data.test needs data.validation: checkpoints are chosen there, and test is read once"
            )
        return self


class Generation(Rules):
    """How contestants answer (section 3)."""

    temperature: float = Field(default=0.7, ge=0, le=5, description="sampling temperature; 0: greedy")
    top_p: float = Field(
        default=0.95,
        gt=0,
        le=1,
        description="sample from the most likely tokens of this total probability; 1: off",
    )
    top_k: int = Field(default=50, ge=0, description="sample from so many most likely tokens; 0: off")
    max_new_tokens: int = Field(default=512, ge=1, description="longest response, in tokens")


class Judging(Rules):
    """How judges vote (section 2, appendix D)."""

    mode: Literal["text", "expected"] = Field(
        default="text", description="write a score, or the mean over single-token labels"
    )
    constrained: bool = Field(
        default=True, description="text: decode nothing but the JSON form; false: free text, parsed strictly"
    )
    working: bool = Field(default=False, description="let the judge write its own answer on one line first")
    labels: tuple[str, ...] = Field(
        default=tuple("0123456789"), min_length=2, description="expected: single-token labels, worst first"
    )
    temperature: float = Field(default=0.7, ge=0, le=5, description="sampling temperature; 0: greedy")
    top_p: float = Field(
        default=0.95,
        gt=0,
        le=1,
        description="sample from the most likely tokens of this total probability; 1: off",
    )
    top_k: int = Field(default=50, ge=0, description="sample from so many most likely tokens; 0: off")
    max_new_tokens: int = Field(default=32, ge=1, description="for the working and the score together")
    retries: int = Field(default=2, ge=0, description="more tries for a missing vote, each with another seed")
    equal: Literal["skip", "judge"] = Field(
        default="skip",
        description="combats whose answers are equal, or one of them empty: skip asks for no vote and moves no reputation; judge, as the "
        "paper's letter has it: votes are asked for and move reputations; authors: judge. Neither makes a pair of them",
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
    """How every model learns from the iteration's pairs (section 3)."""

    beta: float = Field(
        default=0.1,
        gt=0,
        description="how strongly a model is held to the one that it was before the training",
    )
    learning_rate: float = Field(default=1e-6, gt=0, description="at its peak, after the warm-up")
    epochs: int = Field(default=1, ge=1, description="passes over the iteration's pairs")
    batch_size: int = Field(default=1, ge=1, description="pairs a step on the device")
    accumulation: int = Field(default=1, ge=1, description="steps a weight update")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        default="cosine", description="how the learning rate falls after the warm-up"
    )
    warmup: float = Field(
        default=0.1, ge=0, lt=1, description="share of the updates in which the learning rate rises"
    )
    weight_decay: float = Field(default=0.0, ge=0, description="of AdamW")
    max_grad_norm: float = Field(default=1.0, gt=0, description="gradients are clipped to this norm")
    max_length: int = Field(
        default=2048, ge=8, description="tokens, prompt and completion; a longer pair is dropped and counted"
    )
    gradient_checkpointing: bool = Field(
        default=False, description="recompute activations in the backward pass: less memory, more time"
    )
    save_updates: int = Field(
        default=200,
        ge=1,
        description="weight updates between two checkpoints to resume from",
        json_schema_extra=HOW,
    )


class Assumed(Rules):
    """Rates of one task, for estimates and numbers of tasks until an iteration has been measured. The defaults are for a 7B model on an A100."""

    tokens_per_second: float = Field(default=2000.0, gt=0, description="generated tokens")
    pairs_per_second: float = Field(default=1.5, gt=0, description="preference pairs trained on")
    learned_tokens_per_second: float = Field(
        default=3000.0, gt=0, description="tokens of data that experts are trained on"
    )
    start_seconds: float = Field(
        default=60.0,
        ge=0,
        description="to load a base; 0: phases are always dealt to as many tasks as run at once",
    )
    prompt_token: float = Field(default=0.3, ge=0, description="cost of a prompt token, in generated tokens")


class Cluster(Rules):
    """Where phases run. None of it changes a result."""

    kind: ClusterKind = Field(
        default="auto",
        description="auto: where the run has been, if that was on this machine; else slurm where there is sbatch (and this is no job), local where there are several GPUs, else inline",
    )
    profile: str | None = Field(
        default=None, description="slurm: a file, or a name under slurm/profiles; null: a100-16"
    )
    tasks: int | None = Field(
        default=None,
        ge=1,
        description="tasks (shards) a phase is dealt to; null: as many as run at once, but none that loads longer than it works",
    )
    at_once: int | None = Field(
        default=None,
        ge=1,
        description="most tasks that run at the same time; null: GPUs (local without: half the cores), the profile's on SLURM",
    )
    max_attempts: int = Field(
        default=3, ge=1, description="attempts at an item, by one launch, before the run stops"
    )
    flush_seconds: float = Field(
        default=2.0, gt=0, description="longest time until a finished row is safe from a power cut"
    )
    fused: bool = Field(
        default=False,
        description="generate and judge in one array: one engine start, votes as soon as both responses exist",
    )
    assumed: Assumed = Assumed()


class JudgeModel(Rules):
    """The judge of an evaluation: a model apart from the pool, on an engine of its own. The paper's is Gemini 1.5 Flash, by its endpoint."""

    base: str = Field(
        description="folder, hub:OWNER/NAME[@REVISION] or embedded:NAME; for an endpoint the model's name there"
    )
    adapter: str | None = Field(
        default=None, description="PEFT folder, hub:OWNER/NAME[@REVISION] or embedded:NAME"
    )
    engine: EngineSettings = EngineSettings()
    chat: Chat = Field(default=Chat(), description="of this model; the day is the run's where it says none")
    max_new_tokens: int = Field(default=32, ge=1, description="longest grade, in tokens")
    retries: int = Field(
        default=2, ge=0, description="more tries for a grade that cannot be read, at temperature 0.7"
    )

    @field_validator("base", "adapter")
    @classmethod
    def _well_formed(cls, reference: str | None) -> str | None:
        return reference if reference is None else well_formed(reference)

    def identity(self, version: str) -> dict[str, Any]:
        """Everything that could change a grade, as plain values; what has its default is left out. version: of the adapter, wherever it lies."""
        return {**identity_of(self, defaults=False), "adapter": version}


class Evaluation(Rules):
    """What checkpoints are scored on."""

    tasks: tuple[str, ...] = Field(default=(), description="tasks to score on; none: data.task, or `own`")
    validation: int | None = Field(default=None, ge=1, description="items of the validation split; null: all")
    test: int | None = Field(default=None, ge=1, description="items of the test split; null: all")
    max_new_tokens: int | None = Field(default=None, ge=1, description="null: each task's own")
    chat_template: bool | None = Field(
        default=None, description="null: each task's own (C.5 of the paper); false: the bare text"
    )
    judge: JudgeModel | None = Field(
        default=None,
        description="for metrics that a judge gives; null: those metrics are left out, and said so",
    )


class Recipe(Rules):
    """A run, whole."""

    name: str = Field(min_length=1, description="what the run is called in tables")
    method: str = Field(
        default="sparta", min_length=1, description="how the pool is aligned: a file under sparta/methods"
    )
    seed: int = Field(default=0, ge=0, description="every random draw of the run is derived from it")
    iterations: int = Field(
        default=8, ge=1, description="T; more than before continues a finished run", json_schema_extra=HOW
    )
    combats: int = Field(default=1000, ge=1, description="N, combats an iteration")
    pool: Pool
    data: Data
    match: MatchMaking = MatchMaking()
    chat: Chat = Chat()
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
                "an endpoint does not continue a working with labels: set judging.working to false or judging.mode to text"
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
                    f"{where}chat.template_kwargs cannot be told to an endpoint in OpenAI's own protocol: set {where}engine.api.dialect to vllm where it "
                    "is `vllm serve`, or leave them out"
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
    def _fusible(self) -> Self:
        bases = sorted({self.pool.base_of(model) for model in self.pool.models})
        if self.cluster.fused and len(bases) > 1:
            raise ValueError(
                f"cluster.fused needs one base for all models, here are {len(bases)} ({', '.join(bases)}): set it to false"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _fill_from_reputation(cls, given: Any) -> Any:
        """The preset of reputations, and frozen ones, decide in other sections what these leave open."""
        return overlay(filled_elsewhere(given.get("reputation")), given) if isinstance(given, dict) else given

    @property
    def remarks(self) -> list[str]:
        """What follows from several keys together and a reader of one of them may not expect, a sentence each."""
        if not self.reputation.frozen:
            return []
        if self.reweighting.enabled:
            return [
                "reputations are frozen, so each iteration draws the judge to weight down among equals (reweighting.enabled)"
            ]
        return [
            "no judge is weighted down (C.1): reputations are frozen, so none is the lowest; reweighting.enabled=true turns it on"
        ]

    @property
    def of_the_hub(self) -> tuple[str, ...]:
        """The models named hub:OWNER/NAME[@REVISION], of the pool, of the judge of evaluations and for preferences, each once."""
        judge, preference = self.evaluation.judge, self.baseline.preference
        judging = (judge.base, judge.adapter) if judge else ()
        named = (*self.pool.references, *judging, preference.model if preference else None)
        return tuple(dict.fromkeys(name for name in named if name and name.startswith(HUB)))

    @property
    def scored_on(self) -> tuple[str, ...]:
        """The tasks that checkpoints are scored on where no others are asked for; none where it names none."""
        if self.evaluation.tasks:
            return self.evaluation.tasks
        if self.data.task is not None:
            return (self.data.task,)
        return ("own",) if self.data.validation is not None else ()

    def placed(self) -> Self:
        """Itself, with pool.folder said where models of the hub are named, and data.folder where experts learn from subsets.

        Jobs look for both, and run from a copy of the code, beside which there is neither.
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
        """sha256 (hex) of the identity without what has its default: a key that a later version adds leaves older runs what they were.

        Of a field whose default is no longer what it was, what it was is left out (see `sparta.arena.rules.earlier`).
        """
        return hashlib.sha256(
            json.dumps(identity_of(self, defaults=False), sort_keys=True).encode()
        ).hexdigest()

    def differences(self, other: Self) -> list[str]:
        """One line for each value of the identity in which `other` differs: "match.k: 5, now 3"."""
        absent = object()
        mine, theirs = dict(flat(self.identity())), dict(flat(other.identity()))
        return [
            f"{key}: {mine.get(key, 'absent')}, now {theirs.get(key, 'absent')}"
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key, absent) != theirs.get(key, absent)
        ]

    def to_yaml(self) -> str:
        """The whole recipe, defaults included: what is frozen into the state."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)

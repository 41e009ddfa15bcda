"""The recipe: the whole configuration of a run, typed, bounded and documented.

The defaults are the paper's (arXiv 2506.04721, sections 3 and C.2-C.5). Unknown keys are refused. The full recipe is frozen into the
state, and its `identity` (everything that could change a result, and nothing else) decides whether a later launch continues the same run.
Files and `--set` are read in recipe_files.py.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, Field, field_validator, model_validator
from pydantic.config import JsonDict

from sparta.arena.rules import MatchMaking, Preferences, Reputation, Reweighting, Rules
from sparta.errors import SpartaError
from sparta.store.layout import check_model_name

Share = Annotated[float, Field(ge=0, le=1)]
VLLM_HOTTEST = 2.0
"""The highest temperature that vLLM takes."""
HOW: JsonDict = {"identity": False}
"""Marks a field that says how a run is carried out, not what it computes: it may change between two launches of one run."""


class Model(Rules):
    """One member of the pool: a base with the LoRA adapter that learns. Full models answer and judge, but are not trained yet: a launch refuses them."""

    name: str
    base: str | None = Field(default=None, description="folder or embedded:NAME; null: pool.base")
    adapter: str | None = Field(default=None, description="PEFT folder or embedded:NAME; safetensors only")

    @field_validator("name")
    @classmethod
    def _usable_as_folder(cls, name: str) -> str:
        try:
            check_model_name(name)
        except SpartaError as error:
            raise ValueError(str(error)) from None
        return name


class Pool(Rules):
    """The pool M^0. Relative paths begin with ./ or ../ and are taken from the file that names them."""

    base: str | None = Field(default=None, description="base of every model that names none")
    models: tuple[Model, ...] = ()
    trust_remote_code: bool = Field(
        default=False, description="run code that a base model ships; only for bases you trust"
    )

    @model_validator(mode="after")
    def _playable(self) -> Self:
        names = [model.name for model in self.models]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two models are named {twice[0]}: give each a name of its own")
        if len(names) < 3:
            raise ValueError(
                f"the pool has {len(names)} model{'s' * (len(names) != 1)}, at least 3 are needed: two duel, the others judge"
            )
        for model in self.models:
            if model.base is None and self.base is None:
                raise ValueError(f"model {model.name} has no base: set pool.base or the model's own base")
        return self

    def base_of(self, model: Model) -> str:
        return model.base or self.base or ""


class Data(Rules):
    """The instructions X to align on: a JSONL file of one's own, or a task that the suite knows."""

    task: str | None = Field(default=None, description="a task of sparta.tasks; its training split is X")
    train: str | None = Field(
        default=None, description="JSONL with `prompt` (text) or `messages`, and optionally `id`"
    )
    size: int | None = Field(
        default=None, ge=1, description="use the first so many instructions; null: all that there are"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.task is None) == (self.train is None):
            raise ValueError("name either data.task or data.train, not both and not neither")
        return self


class Generation(Rules):
    """How contestants answer (section 3)."""

    temperature: float = Field(default=0.7, ge=0, le=5)
    top_p: float = Field(default=0.95, gt=0, le=1)
    top_k: int = Field(default=50, ge=0, description="0: off")
    max_new_tokens: int = Field(default=512, ge=1)


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
    temperature: float = Field(default=0.7, ge=0, le=5)
    top_p: float = Field(default=0.95, gt=0, le=1)
    top_k: int = Field(default=50, ge=0, description="0: off")
    max_new_tokens: int = Field(default=32, ge=1, description="for the working and the score together")
    retries: int = Field(default=2, ge=0, description="more tries for a missing vote, each with another seed")
    max_missing: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="the merge stops when a judge's share of missing votes is above this",
        json_schema_extra=HOW,
    )


class Dpo(Rules):
    """How every model learns from the iteration's pairs (section 3)."""

    beta: float = Field(default=0.1, gt=0)
    learning_rate: float = Field(default=1e-6, gt=0)
    epochs: int = Field(default=1, ge=1)
    batch_size: int = Field(default=1, ge=1, description="pairs a step on the device")
    accumulation: int = Field(default=1, ge=1, description="steps a weight update")
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = Field(default=0.1, ge=0, lt=1, description="share of the updates")
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    max_length: int = Field(
        default=2048, ge=8, description="tokens, prompt and completion; a longer pair is dropped and counted"
    )
    gradient_checkpointing: bool = False
    save_updates: int = Field(
        default=200,
        ge=1,
        description="weight updates between two checkpoints to resume from",
        json_schema_extra=HOW,
    )


class Scripted(Rules):
    """The scripted engine: no model at all, answers and votes derived from seeds. For rehearsals of a cluster and for tests of faults."""

    delay: float = Field(default=0.0, ge=0, description="seconds a completion takes", json_schema_extra=HOW)
    unreadable: dict[str, Share] = Field(
        default={}, description="judge -> share of its votes that cannot be read"
    )


class Vllm(Rules):
    """vLLM. The defaults are for a 7B base on one A100 of 40 GB."""

    memory_share: float = Field(
        default=0.9, gt=0, le=1, description="share of the GPU's memory", json_schema_extra=HOW
    )
    tensor_parallel: int = Field(
        default=1, ge=1, description="GPUs that share one base; a task needs as many", json_schema_extra=HOW
    )
    max_rank: int | None = Field(
        default=None,
        ge=1,
        description="largest LoRA rank, memory is set aside for it; null: the largest of the pool's",
        json_schema_extra=HOW,
    )
    adapters_at_once: int = Field(
        default=10, ge=1, description="adapters that one batch may mix", json_schema_extra=HOW
    )
    sequences: int = Field(default=256, ge=1, description="requests in one batch", json_schema_extra=HOW)
    prefill_tokens: int = Field(
        default=8192, ge=1, description="tokens in one step, prompts cut to fit", json_schema_extra=HOW
    )
    prefix_caching: bool = Field(
        default=True, description="keep what prompts of one adapter begin with", json_schema_extra=HOW
    )
    eager: bool | None = Field(
        default=None, description="no CUDA graphs; null: on a CPU alone", json_schema_extra=HOW
    )
    cpu_cache_gib: float = Field(
        default=1.0, gt=0, description="on a CPU: memory for keys and values, in GiB", json_schema_extra=HOW
    )
    own_process: bool | None = Field(
        default=None,
        description="run in a child process, which gives a GPU's memory back at its end; null: on a GPU",
        json_schema_extra=HOW,
    )


class Api(Rules):
    """An endpoint that speaks OpenAI's protocol: `vllm serve`, a vendor's."""

    url: str | None = Field(
        default=None,
        description="such as http://127.0.0.1:8000/v1; the same models may move to another",
        json_schema_extra=HOW,
    )
    dialect: Literal["openai", "vllm"] = Field(
        default="openai",
        description="vllm: `vllm serve`, which also takes top_k and patterns; openai: the protocol's own fields alone",
    )
    key_variable: str = Field(
        default="OPENAI_API_KEY",
        description="the environment variable that holds the key; an http:// or local endpoint may need none. "
        "Over http:// a key is sent to this machine or a private address alone",
        json_schema_extra=HOW,
    )
    models: dict[str, str] = Field(
        default={},
        description="model of the pool -> its name at the endpoint; else the base's name. An adapter under such a name "
        "answers as it is now: once its model has learned, the run stops and says so",
    )
    load_adapters: bool = Field(
        default=False,
        description="have the endpoint load adapters by path: vllm serve with --enable-lora and "
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True that sees the state under the same path",
    )
    concurrency: int = Field(
        default=32, ge=1, description="requests under way, of one task", json_schema_extra=HOW
    )
    timeout: float = Field(default=120.0, gt=0, description="seconds for one answer", json_schema_extra=HOW)
    retries: int = Field(
        default=6,
        ge=0,
        description="more tries, ever later, for a request that the endpoint did not answer",
        json_schema_extra=HOW,
    )
    input_price: float = Field(
        default=0.0, ge=0, description="of a million prompt tokens", json_schema_extra=HOW
    )
    output_price: float = Field(
        default=0.0, ge=0, description="of a million generated tokens", json_schema_extra=HOW
    )
    max_cost: float | None = Field(
        default=None,
        gt=0,
        description="what the run may spend, in the prices' currency; it stops there and can go on. Calls under way, of all tasks, are finished, "
        "and a task learns of the others' calls every 3 seconds: by what those calls cost, more may be spent",
        json_schema_extra=HOW,
    )

    @field_validator("url")
    @classmethod
    def _nothing_secret(cls, url: str | None) -> str | None:
        """The recipe is frozen into the state and addresses are shown: a key has no place in one."""
        parts = urlsplit(url or "http://host")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("an endpoint's address begins with http:// or https:// and a host")
        if parts.username or parts.password or parts.query:
            raise ValueError(
                "no user, password or query belongs here: keys come from the variable in key_variable"
            )
        return url


class Engine(Rules):
    """What turns prompts into text."""

    kind: Literal["auto", "hf", "vllm", "api", "scripted"] = Field(
        default="auto", description="auto: vllm where there is a GPU, hf elsewhere"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="auto: bfloat16 on a GPU, float32 elsewhere"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto",
        description="auto: a GPU where there is one; which one, CUDA_VISIBLE_DEVICES says",
        json_schema_extra=HOW,
    )
    context_length: int = Field(
        default=4096, ge=16, description="tokens, prompt and completion; lowered to what the base allows"
    )
    batch_tokens: int = Field(
        default=32768, ge=1, description="hf: tokens in flight in one batch", json_schema_extra=HOW
    )
    threads: int | None = Field(
        default=None, ge=1, description="CPU threads; null: what the machine offers", json_schema_extra=HOW
    )
    vllm: Vllm = Vllm()
    api: Api = Api()
    scripted: Scripted = Scripted()

    @property
    def gpus(self) -> int:
        """GPUs that hold one base together."""
        return self.vllm.tensor_parallel if self.kind in ("auto", "vllm") else 1

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.kind == "api" and self.api.url is None:
            raise ValueError("engine.kind is api and there is no endpoint: set engine.api.url")
        return self


class Assumed(Rules):
    """Rates of one task, for estimates and numbers of tasks until an iteration has been measured. The defaults are for a 7B model on an A100."""

    tokens_per_second: float = Field(default=2000.0, gt=0, description="generated tokens")
    pairs_per_second: float = Field(default=1.5, gt=0, description="preference pairs trained on")
    start_seconds: float = Field(
        default=60.0,
        ge=0,
        description="to load a base; 0: phases are always dealt to as many tasks as run at once",
    )
    prompt_token: float = Field(default=0.3, ge=0, description="cost of a prompt token, in generated tokens")


ClusterKind = Literal["auto", "inline", "local", "slurm"]


class Cluster(Rules):
    """Where phases run. None of it changes a result."""

    kind: ClusterKind = Field(
        default="auto",
        description="auto: slurm where there is sbatch (and this is no job), local where there are several GPUs, else inline",
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


class Evaluation(Rules):
    """What checkpoints are scored on."""

    task: str | None = Field(default=None, description="null: data.task")
    validation: int | None = Field(default=None, ge=1, description="items of the validation split; null: all")
    test: int | None = Field(default=None, ge=1, description="items of the test split; null: all")
    max_new_tokens: int = Field(default=512, ge=1)


class Recipe(Rules):
    """A run, whole."""

    name: str = Field(min_length=1)
    method: Literal["sparta"] = "sparta"
    seed: int = Field(default=0, ge=0)
    iterations: int = Field(
        default=8, ge=1, description="T; more than before continues a finished run", json_schema_extra=HOW
    )
    combats: int = Field(default=1000, ge=1, description="N, combats an iteration")
    pool: Pool
    data: Data
    match: MatchMaking = MatchMaking()
    generation: Generation = Generation()
    judging: Judging = Judging()
    reputation: Reputation = Reputation()
    reweighting: Reweighting = Reweighting()
    preferences: Preferences = Preferences()
    dpo: Dpo = Dpo()
    engine: Engine = Engine()
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
    def _authors_reweight_later(cls, given: Any) -> Any:
        """The authors' iterations count from 0: under their preset the first down-weighting takes effect at the third."""
        if not isinstance(given, dict):
            return given
        reputation, reweighting = given.get("reputation"), given.get("reweighting", {})
        if (
            isinstance(reputation, dict)
            and reputation.get("preset") == "authors"
            and isinstance(reweighting, dict)
        ):
            return {**given, "reweighting": {"first_iteration": 3, **reweighting}}
        return given

    def identity(self) -> dict[str, Any]:
        """Everything that could change a result, as plain values."""
        return _identity(self)

    @property
    def hash(self) -> str:
        """sha256 (hex) of the identity without what has its default: a key that a later version adds leaves older runs what they were."""
        return hashlib.sha256(
            json.dumps(_identity(self, defaults=False), sort_keys=True).encode()
        ).hexdigest()

    def differences(self, other: Self) -> list[str]:
        """One line for each value of the identity in which `other` differs: "match.k: 5, now 3"."""
        mine, theirs = dict(_flat(self.identity())), dict(_flat(other.identity()))
        return [
            f"{key}: {mine.get(key, 'absent')}, now {theirs.get(key, 'absent')}"
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key, _ABSENT) != theirs.get(key, _ABSENT)
        ]

    def to_yaml(self) -> str:
        """The whole recipe, defaults included: what is frozen into the state."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)


_ABSENT = object()


def _identity(section: BaseModel, defaults: bool = True) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get("identity") is False:
            continue
        value = getattr(section, name)
        plain = _plain(value, defaults)
        usual = not plain if isinstance(value, BaseModel) else value == field.default
        if defaults or not usual:
            values[name] = plain
    return values


def _plain(value: Any, defaults: bool) -> Any:
    if isinstance(value, BaseModel):
        return _identity(value, defaults)
    if isinstance(value, tuple):
        return [_plain(item, defaults) for item in value]
    return value


def _flat(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(tree, list) and any(isinstance(item, dict) for item in tree):
        for index, value in enumerate(tree):
            yield from _flat(value, f"{prefix}.{index}")
    else:
        yield prefix, tree

"""The part of a recipe that says what turns prompts into text: the engines' settings, typed, bounded and documented."""

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic.config import JsonDict

from sparta.arena.rules import Rules

Share = Annotated[float, Field(ge=0, le=1)]
VLLM_HOTTEST = 2.0
"""The highest temperature that vLLM takes."""
HOW: JsonDict = {"identity": False}
"""Marks a field that says how a run is carried out, not what it computes: it may change between two launches of one run."""


class Scripted(Rules):
    """The scripted engine: no model at all, answers and votes derived from seeds. For rehearsals of a cluster and for tests of faults."""

    delay: float = Field(default=0.0, ge=0, description="seconds a completion takes", json_schema_extra=HOW)
    unreadable: dict[str, Share] = Field(
        default={}, description="judge -> share of its votes that cannot be read"
    )
    equal: Share = Field(default=0.0, description="share of the questions that all models answer alike")


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


class EngineSettings(Rules):
    """What turns prompts into text."""

    kind: Literal["auto", "hf", "vllm", "api", "scripted"] = Field(
        default="auto",
        description="auto: vllm where there is a GPU, hf elsewhere and for bases below 64 MB",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="auto: bfloat16 on a GPU, float32 elsewhere"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto",
        description="auto: a GPU where there is one, a CPU elsewhere and for bases below 64 MB; which GPU, CUDA_VISIBLE_DEVICES says",
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

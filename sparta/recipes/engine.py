"""The recipe section for the engines, which turn prompts into text."""

from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, JsonValue, field_validator, model_validator
from pydantic.config import JsonDict

from sparta.arena.rules import Rules

Share = Annotated[float, Field(ge=0, le=1)]
HOTTEST = 5.0
"""The highest temperature that a recipe may ask for."""
VLLM_HOTTEST = 2.0
"""The highest temperature that vLLM accepts."""
HOW: JsonDict = {"identity": False}
"""Marks a field that affects how a run is executed, not its results: it may change between two launches of a run."""


def how_by_now(value: JsonValue) -> JsonDict:
    """Marks a field that is HOW, but was part of the identity in earlier versions if it had this value, which was not their default."""
    return {**HOW, "identity_with": value}


class Scripted(Rules):
    """The scripted engine: no model; answers and votes are derived from seeds. For rehearsals on a cluster and for tests of faults."""

    delay: float = Field(default=0.0, ge=0, description="seconds per completion", json_schema_extra=HOW)
    unreadable: dict[str, Share] = Field(
        default={}, description="judge -> share of its votes that cannot be read"
    )
    equal: Share = Field(
        default=0.0, description="share of the questions to which all models give the same answer"
    )


class Speculative(Rules):
    """Speculative decoding: tokens are guessed and then checked all at once. Texts come from the same distribution, but are not the same texts."""

    method: Literal["ngram"] = Field(
        default="ngram", description="ngram: guesses what followed the same tokens earlier in the text"
    )
    tokens: int = Field(ge=1, le=16, description="tokens guessed at a time")


class Vllm(Rules):
    """vLLM. The defaults are for a 7B base on one A100 of 40 GB."""

    memory_share: float = Field(
        default=0.9, gt=0, le=1, description="share of the GPU's memory", json_schema_extra=HOW
    )
    tensor_parallel: int = Field(
        default=1, ge=1, description="GPUs per base; each task needs that many", json_schema_extra=HOW
    )
    max_rank: int | None = Field(
        default=None,
        ge=1,
        description="largest LoRA rank, for which memory is reserved; null: the largest rank in the pool",
        json_schema_extra=HOW,
    )
    adapters_at_once: int = Field(
        default=10, ge=1, description="maximum number of adapters in one batch", json_schema_extra=HOW
    )
    sequences: int = Field(
        default=256, ge=1, description="maximum number of requests in one batch", json_schema_extra=HOW
    )
    prefill_tokens: int = Field(
        default=8192,
        ge=1,
        description="maximum tokens in one step; longer prompts are prefilled in chunks",
        json_schema_extra=HOW,
    )
    prefix_caching: bool = Field(
        default=True, description="reuse the KV cache of common prompt prefixes", json_schema_extra=HOW
    )
    eager: bool | None = Field(
        default=None,
        description="no compiling and no CUDA graphs; null: only on a CPU",
        json_schema_extra=HOW,
    )
    cpu_cache_gib: float = Field(
        default=1.0, gt=0, description="on a CPU: memory for the KV cache, in GiB", json_schema_extra=HOW
    )
    own_process: bool | None = Field(
        default=None,
        description="run in a child process, which frees the GPU's memory when it ends; null: only on a GPU",
        json_schema_extra=HOW,
    )
    speculative: Speculative | None = Field(
        default=None,
        description="guess several tokens at a time; null: off. It can be faster where texts repeat themselves. Not with judging.mode expected",
    )


class Api(Rules):
    """An endpoint with OpenAI's protocol: `vllm serve`, or a vendor's."""

    url: str | None = Field(
        default=None,
        description="such as http://127.0.0.1:8000/v1; may change during a run if the new endpoint serves the same models",
        json_schema_extra=HOW,
    )
    dialect: Literal["openai", "vllm"] = Field(
        default="openai",
        description="vllm: `vllm serve`, which also accepts top_k and guided decoding; openai: only the fields of the protocol",
    )
    key_variable: str = Field(
        default="OPENAI_API_KEY",
        description="the environment variable that holds the key; an http:// or local endpoint may need none. "
        "Over http://, a key is only sent to this machine or a private address",
        json_schema_extra=HOW,
    )
    models: dict[str, str] = Field(
        default={},
        description="model of the pool -> its name at the endpoint; default: the base's name. An adapter served under such a name "
        "does not change: once its model has been trained, the run stops with an error",
    )
    max_completion_tokens: bool = Field(
        default=False,
        description="send the limit of new tokens as max_completion_tokens, for endpoints that refuse max_tokens",
        json_schema_extra=HOW,
    )
    load_adapters: bool = Field(
        default=False,
        description="let the endpoint load adapters by path; this needs vllm serve with --enable-lora and "
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, and the state under the same path there",
    )
    concurrency: int = Field(
        default=32, ge=1, description="concurrent requests per task", json_schema_extra=HOW
    )
    timeout: float = Field(
        default=120.0, gt=0, description="seconds to wait for one answer", json_schema_extra=HOW
    )
    retries: int = Field(
        default=6,
        ge=0,
        description="retries, with growing delays, of a request that the endpoint did not answer",
        json_schema_extra=HOW,
    )
    input_price: float = Field(
        default=0.0, ge=0, description="price of a million prompt tokens", json_schema_extra=HOW
    )
    output_price: float = Field(
        default=0.0, ge=0, description="price of a million generated tokens", json_schema_extra=HOW
    )
    max_cost: float | None = Field(
        default=None,
        gt=0,
        description="budget of the run, in the currency of the prices; the run stops there and can be resumed. It may be exceeded by the cost of "
        "the calls in flight in all tasks, and of the calls of other tasks in the last 3 seconds",
        json_schema_extra=HOW,
    )

    @field_validator("url")
    @classmethod
    def _nothing_secret(cls, url: str | None) -> str | None:
        """The recipe is stored in the state and URLs are printed, so a URL may not hold a key."""
        parts = urlsplit(url or "http://host")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("an endpoint's address begins with http:// or https:// and a host")
        if parts.username or parts.password or parts.query:
            raise ValueError(
                "no user, password or query belongs here: keys come from the variable in key_variable"
            )
        return url


class EngineSettings(Rules):
    """The engine that turns prompts into text."""

    kind: Literal["auto", "hf", "vllm", "api", "scripted"] = Field(
        default="auto",
        description="auto: vllm where there is a GPU, hf elsewhere and for bases below 64 MB",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="auto: bfloat16 on a GPU, float32 elsewhere"
    )
    quantize: Literal["nf4"] | None = Field(
        default=None,
        description="nf4: hold the base in 4 bits (bitsandbytes) for generation, for training and for its reference, in a quarter to a third "
        "of the memory of bfloat16; training needs a GPU then. null: in engine.dtype. Adapters are not quantised",
    )
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = Field(
        default="auto",
        description="implementation of attention in training and in hf; vllm chooses its own. auto: that of transformers, usually sdpa. "
        "flash_attention_2 needs a GPU and the package flash-attn",
        json_schema_extra=HOW,
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto",
        description="auto: a GPU if there is one, a CPU elsewhere and for bases below 64 MB; CUDA_VISIBLE_DEVICES selects the GPU",
        json_schema_extra=HOW,
    )
    context_length: int = Field(
        default=4096, ge=16, description="tokens, prompt and completion; lowered to the base's maximum"
    )
    batch_tokens: int = Field(
        default=32768, ge=1, description="hf: tokens in flight in one batch", json_schema_extra=HOW
    )
    threads: int | None = Field(
        default=None, ge=1, description="CPU threads; null: all of the machine's", json_schema_extra=HOW
    )
    vllm: Vllm = Vllm()
    api: Api = Api()
    scripted: Scripted = Scripted()

    @property
    def gpus(self) -> int:
        """Number of GPUs per base."""
        return self.vllm.tensor_parallel if self.kind in ("auto", "vllm") else 1

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.kind == "api" and self.api.url is None:
            raise ValueError("engine.kind is api and there is no endpoint: set engine.api.url")
        return self

    @model_validator(mode="after")
    def _of_half_precision(self) -> Self:
        if self.attention == "flash_attention_2" and self.dtype == "float32":
            raise ValueError(
                "flash_attention_2 computes in half precision, but engine.dtype is float32: set it to auto or bfloat16, or engine.attention to sdpa"
            )
        if self.quantize is not None and self.kind == "vllm" and self.dtype == "float32":
            raise ValueError(
                "vLLM computes with a base in 4 bits in half precision, but engine.dtype is float32: set it to auto or bfloat16"
            )
        return self

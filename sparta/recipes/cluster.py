"""How a run's work is put on GPUs, and the rates assumed until a run has measured its own."""

from typing import Any, Literal

from pydantic import Field, PositiveInt, field_validator

from sparta.arena.rules import Rules
from sparta.names import ClusterKind


class Assumed(Rules):
    """Assumed speed of one task, used for estimates and task counts until an iteration has been measured. Defaults: a 7B model on an A100, scaled
    from what was measured on an H100 (tests/README.md, "Rates that estimates assume"). A profile may have those of its GPUs.
    """

    tokens_per_second: float = Field(
        default=5000.0, gt=0, description="generated tokens, without the time to read prompts"
    )
    pairs_per_second: float = Field(default=1.0, gt=0, description="preference pairs trained on")
    learned_tokens_per_second: float = Field(
        default=2000.0, gt=0, description="tokens of the experts' data trained on"
    )
    start_seconds: float = Field(
        default=60.0,
        ge=0,
        description="to start an engine that finds its compiled code in the cache; 0: phases are always sharded over as many tasks as run at once",
    )
    set_up_seconds: float = Field(
        default=20.0, ge=0, description="of a training task before its first update: to load a base"
    )
    prompt_token: float = Field(
        default=0.35, ge=0, description="cost of a prompt token, relative to a generated token"
    )


class Cluster(Rules):
    """Where phases run. None of it changes a result."""

    kind: ClusterKind = Field(
        default="auto",
        description="auto: as the run was launched before, if that was on this machine; otherwise slurm if there is sbatch (and this is not inside a job), "
        "local if there are several GPUs, else inline",
    )
    profile: str | None = Field(
        default=None, description="slurm: a file, or a name under slurm/profiles; null: a100-16"
    )
    tasks: int | None = Field(
        default=None,
        ge=1,
        description="tasks (shards) per phase; null: as many as run at once, but fewer if tasks would load longer than they work",
    )
    at_once: int | None = Field(
        default=None,
        ge=1,
        description="maximum number of tasks that run at the same time; null: one per GPU (local without GPUs: half the cores), on SLURM the profile's",
    )
    max_attempts: int = Field(
        default=3, ge=1, description="attempts per item within one launch before the run stops"
    )
    flush_seconds: float = Field(
        default=2.0, gt=0, description="maximum time until a finished row survives a power cut"
    )
    train_together: Literal["auto"] | PositiveInt = Field(
        default="auto",
        description="members of one base that a training task trains at the same time; results are those of training each alone. auto: all members of the task, on a GPU as many as fit its memory. A number: tasks get this many members",
    )
    gpus_per_training: int = Field(
        default=1,
        ge=1,
        description="GPUs of one node that a task of DPO divides its base over, for a base that does not fit one; results differ by rounding alone. Members of "
        "one task, and the sides of their pairs, are shared out over them. On a machine without GPUs: processes. The SFT of experts takes one GPU",
    )
    fused: bool | None = Field(
        default=None,
        description="generate and judge in one job array: one engine start, votes as soon as both responses exist. null: on, if all models share one base "
        "and tasks start vLLM (engine.kind is vllm, or auto on SLURM)",
    )
    assumed: Assumed = Assumed()

    @field_validator("train_together", mode="before")
    @classmethod
    def _auto_or_a_number(cls, given: Any) -> Any:
        if given != "auto" and (not isinstance(given, int) or isinstance(given, bool) or given < 1):
            raise ValueError(f"is auto or a whole number from 1 on, not {given!r}")
        return given

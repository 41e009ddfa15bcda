"""The section `baseline` of a recipe: keys of methods that align one model, the baselines of the paper (section 3)."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from sparta.arena.rules import Rules
from sparta.recipes.engine import HOW
from sparta.recipes.pool import well_formed


class PreferenceModel(Rules):
    """What compares two candidates, for sppo."""

    kind: Literal["gold", "reward", "ranker"] = Field(
        description="gold: the task's own grader, for tasks with exact answers; reward: a model that scores one answer (sequence classification, one label); "
        "ranker: a model that reads two answers at once, in the format of llm-blender/PairRM-hf",
    )
    model: str | None = Field(
        default=None,
        description="for reward and ranker: a folder or hub:OWNER/NAME[@REVISION]; safetensors only",
    )
    noise: float = Field(
        default=0.0,
        ge=0,
        lt=0.5,
        description="for gold: a right answer beats a wrong one with probability 1 - noise",
    )

    @field_validator("model")
    @classmethod
    def _well_formed(cls, reference: str | None) -> str | None:
        return reference if reference is None else well_formed(reference)

    @model_validator(mode="after")
    def _has_a_model(self) -> Self:
        if (self.kind == "gold") != (self.model is None):
            remedy = "takes no model: remove it" if self.kind == "gold" else "needs a model: name one"
            raise ValueError(f"kind {self.kind} {remedy}")
        if self.kind != "gold" and self.noise:
            raise ValueError(f"noise applies only to kind gold, but kind is {self.kind}: remove noise")
        return self


class Budget(Rules):
    """A budget of tokens per iteration, which sets the number of prompts."""

    like: str = Field(
        description="state directory of a run; the budget is the mean of its iterations' tokens: generated, read and trained on together",
        json_schema_extra=HOW,
    )
    tokens: int | None = Field(
        default=None, ge=1, description="the tokens per iteration, filled in when the run begins"
    )


class Baseline(Rules):
    """Keys of methods that align one model; each method uses some of them. N, T, sampling, judging and DPO have the same keys for all methods."""

    start: str | None = Field(
        default=None,
        description="the member that learns; the others are carried over unchanged. null: the only member of the pool",
    )
    candidates: int = Field(
        default=4,
        ge=1,
        description="responses to each prompt; the best and the worst make a pair. spin always samples one",
    )
    rounds: int = Field(
        default=3,
        ge=1,
        description="votes on each candidate; their mean is its score. meta_rewarding also compares them with each other",
    )
    preference: PreferenceModel | None = Field(
        default=None, description="for sppo, which requires it: what compares candidates"
    )
    eta: float = Field(
        default=1000.0,
        gt=0,
        description="for sppo, 1/beta': a win rate P pulls the log-ratio of a candidate to eta (P - 1/2)",
    )
    budget: Budget | None = Field(
        default=None,
        description="null: the paper's budget, `combats` prompts per iteration. Otherwise tokens set the number of prompts: it replaces combats in the first "
        "iteration, and later iterations use the measured cost of a prompt and correct for tokens left over or overspent",
    )
    length_control: float = Field(
        default=0.1,
        ge=0,
        lt=0.5,
        description="rho of meta_rewarding: chosen is the shortest candidate in the top share rho of the range of scores, rejected the longest in the bottom share; "
        "0: the best and the worst",
    )

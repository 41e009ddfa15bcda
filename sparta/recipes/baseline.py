"""What methods that align one model alone are told beside the keys that they share with Sparta: the baselines of the paper (section 3)."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from sparta.arena.rules import Rules
from sparta.recipes.engine import HOW
from sparta.recipes.pool import well_formed


class PreferenceModel(Rules):
    """What says for sppo how likely one candidate beats another."""

    kind: Literal["gold", "reward", "ranker"] = Field(
        description="gold: the task's own grader, for exact tasks; reward: a model that scores one answer (sequence classification, one label); ranker: one "
        "that reads two answers at once, as PairRM does",
    )
    model: str | None = Field(
        default=None, description="reward, ranker: folder or hub:OWNER/NAME[@REVISION]; safetensors only"
    )
    noise: float = Field(
        default=0.0,
        ge=0,
        lt=0.5,
        description="gold: a right answer beats a wrong one with probability 1 - noise",
    )

    @field_validator("model")
    @classmethod
    def _well_formed(cls, reference: str | None) -> str | None:
        return reference if reference is None else well_formed(reference)

    @model_validator(mode="after")
    def _has_a_model(self) -> Self:
        if (self.kind == "gold") != (self.model is None):
            needs = "takes no model" if self.kind == "gold" else "needs a model"
            raise ValueError(f"kind {self.kind} {needs}")
        if self.kind != "gold" and self.noise:
            raise ValueError(f"noise is for kind gold alone, and this is {self.kind}")
        return self


class Budget(Rules):
    """The tokens of an iteration, where they are not what N and the other keys come to."""

    like: str = Field(
        description="state directory of a run: as many tokens an iteration, generated, read and trained on together, as its iterations had on average",
        json_schema_extra=HOW,
    )
    tokens: int | None = Field(
        default=None, ge=1, description="filled in when the run begins: how many these are"
    )


class Baseline(Rules):
    """Methods that align one model: of these keys each takes those that it knows. N, T, sampling, judging and DPO are those of all methods."""

    start: str | None = Field(
        default=None,
        description="the member that learns; the others are carried over unchanged. null: the pool has one member",
    )
    candidates: int = Field(
        default=4,
        ge=1,
        description="responses to each prompt; the best and the worst of them make a pair. spin takes one, whatever is set here",
    )
    rounds: int = Field(
        default=3,
        ge=1,
        description="votes on each candidate, whose mean is its score; meta_rewarding compares them with each other",
    )
    preference: PreferenceModel | None = Field(
        default=None, description="of sppo: what compares candidates; it needs one"
    )
    eta: float = Field(
        default=1000.0,
        gt=0,
        description="of sppo, 1/beta': a win rate P draws the log-ratio of a candidate to eta (P - 1/2)",
    )
    budget: Budget | None = Field(
        default=None,
        description="null: the paper's, combats prompts an iteration; else the number of prompts follows from the tokens: of the first iteration it takes the place "
        "of combats, later ones make up for what those before took too little or too much",
    )
    length_control: float = Field(
        default=0.1,
        ge=0,
        lt=0.5,
        description="rho of meta_rewarding: chosen is the shortest candidate in the upper share rho of the scores' range, rejected the longest in the lower; "
        "0: the best and the worst",
    )

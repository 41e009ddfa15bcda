"""The rules of the game: every knob of match-making, reputation and preferences, typed, bounded and documented.

The recipe embeds these models as they are, so a knob is defined once. Values are the paper's unless said otherwise.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.config import JsonDict
from pydantic.types import JsonValue


class Rules(BaseModel):
    """Frozen; a key that nobody knows is refused, and so is a number that is not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def earlier(value: JsonValue) -> JsonDict:
    """Marks a field whose value an earlier version filled in differently, or that it did not have. value: what runs of that version have.

    Such a run keeps it: where its frozen recipe lacks the key, and where a later launch does not name the key.
    """
    return {"earlier": value}


class MatchMaking(Rules):
    """Who meets whom (section 2, "Match-Making System")."""

    alpha: float = Field(
        default=0.6,
        ge=0,
        le=1,
        description="probability that the opponent is drawn from all others; 1: no top-k, 0: no randomness",
    )
    k: int = Field(
        default=5, ge=1, description="otherwise the opponent is one of the k others closest in reputation"
    )
    first: Literal["uniform", "balanced"] = Field(
        default="uniform",
        description="first contestant: uniform over the pool, or every model once per m prompts in random order; authors: balanced",
        json_schema_extra=earlier("uniform"),
    )


class Kappa(Rules):
    """The scale of an update as combats go by: max(minimum, start * decay^(n / decay_combats)) / divisor, n from 1 in each iteration."""

    start: float = Field(default=1.0, gt=0, description="before any decay and division")
    minimum: float = Field(default=0.0, ge=0, description="the decay stops here; before division")
    decay: float = Field(
        default=1.0, gt=0, le=1, description="factor by which it falls every decay_combats; 1: constant"
    )
    decay_combats: float = Field(
        default=10.0, gt=0, description="combats in which it falls by the factor decay"
    )
    divisor: float = Field(default=1.0, gt=0, description="divides the whole")

    def at(self, n: int) -> float:
        """kappa for the n-th combat of the iteration, n >= 1."""
        return float(max(self.minimum, self.start * self.decay ** (n / self.decay_combats)) / self.divisor)


class Deviation(Rules):
    """sigma, how much a reputation has moved lately."""

    initial: float = Field(default=0.5, gt=0, description="sigma until there are two changes")
    minimum: float = Field(default=0.1, gt=0, description="sigma_min, outside the root")
    window: int = Field(default=10, ge=2, description="N, the changes looked at")
    unit: Literal["iteration", "combat"] = Field(default="iteration", description="what one change is")
    ddof: Literal[0, 1] = Field(default=1, description="1: sample standard deviation, 0: population")
    keep_window: bool = Field(
        default=True,
        description="carry the changes into the next iteration; sigma itself always carries over. false with unit iteration leaves sigma where it is",
    )


class Reputation(Rules):
    """R and its update (equation 1). `preset` fills what is not given: `paper`, or `authors` as their released code behaves."""

    preset: Literal["paper", "authors"] = Field(
        default="paper",
        description="fills the keys of this section that the recipe leaves out, and reweighting.first_iteration",
    )
    initial: float = Field(default=1000.0, gt=0, description="R of every model at the start")
    floor: float = Field(default=1.0, gt=0, description="R never falls below it")
    kappa: Kappa = Kappa()
    epsilon: float = Field(default=0.01, gt=0, description="smallest value of |Phi(z_i) - Phi(z_j)|")
    deviation: Deviation = Deviation()
    update: Literal["simultaneous", "sequential"] = Field(
        default="simultaneous",
        description="both contestants from one snapshot, or the second seeing the first's new R",
    )
    labels: Literal["live", "final"] = Field(
        default="live",
        description="judges' weight in labels: R at that combat (times omega where omega is theirs), or R at the end of the iteration without omega",
    )
    omega: Literal["judges", "contestants"] = Field(
        default="judges",
        description="omega multiplies the judges' reputations, or the contestants' own scores in the update (never in labels)",
    )
    frozen: bool = Field(
        default=False,
        strict=True,
        description="ablation: reputations never change; reweighting is off then unless reweighting.enabled is given",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("preset") == "authors":
            return overlay(_AUTHORS_REPUTATION, given)
        return given

    @model_validator(mode="after")
    def _floor_below_start(self) -> "Reputation":
        if self.floor > self.initial:
            raise ValueError(f"floor {self.floor} is above the initial reputation {self.initial}")
        return self


_AUTHORS_REPUTATION: dict[str, Any] = {
    "initial": 100.0,
    "floor": 10.0,
    "kappa": {"start": 10.0, "minimum": 5.0, "decay": 0.9, "decay_combats": 10.0, "divisor": 20.0},
    "deviation": {"unit": "combat", "ddof": 0, "keep_window": False},
    "update": "sequential",
    "labels": "final",
    "omega": "contestants",
}
_AUTHORS_ELSEWHERE: dict[str, Any] = {
    "match": {"first": "balanced"},
    "judging": {"equal": "judge"},
    # Their iterations count from 0: the first down-weighting takes effect at the third. After the eighth their score type is static.
    "reweighting": {"first_iteration": 3, "last_iteration": 8},
}


def filled_elsewhere(reputation: Any) -> dict[str, Any]:
    """What the section `reputation` of a recipe, as it was given, fills in other sections where these do not say it."""
    if not isinstance(reputation, dict):
        return {}
    filled = _AUTHORS_ELSEWHERE if reputation.get("preset") == "authors" else {}
    if reputation.get("frozen") is True:
        # C.1 picks the lowest reputation, and now there is none.
        filled = overlay(filled, {"reweighting": {"enabled": False}})
    return filled


class Reweighting(Rules):
    """omega, the judging weight (appendix C.1): one more low-ranked model an iteration is weighted down, for good."""

    enabled: bool = Field(
        default=True,
        description="false: ablation without down-weighting; false as well with reputation.frozen, unless it is given",
        json_schema_extra=earlier(True),
    )
    gamma: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="a model that iteration t weights down gets omega = min(1, gamma * (t - first_iteration)), for good",
    )
    first_iteration: int = Field(
        default=2,
        ge=1,
        description="t of the first down-weighting, which gives omega 0; authors: 3",
    )
    last_iteration: int | None = Field(
        default=None,
        ge=1,
        description="t of the last down-weighting, after which omega stays as it is; null: it goes on; authors: 8",
        json_schema_extra=earlier(None),
    )


class Preferences(Rules):
    """Which combats become preference pairs."""

    tie_tolerance: float = Field(
        default=1e-9, ge=0, description="a gap this small is a tie and makes no pair (score points)"
    )
    min_margin: float = Field(
        default=0.0, ge=0, le=9, description="a gap below this makes no pair (score points)"
    )


def overlay(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`below` with every key that `above` gives, section by section."""
    merged = dict(below)
    for key, value in above.items():
        inner = merged.get(key)
        merged[key] = overlay(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged

"""The rules of the game: every setting of match-making, reputation and preferences, typed, bounded and documented.

The recipe embeds these models directly, so each setting is defined once. Defaults are the paper's unless noted.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.config import JsonDict
from pydantic.types import JsonValue


class Rules(BaseModel):
    """Frozen; unknown keys and numbers that are not finite are rejected."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def earlier(value: JsonValue) -> JsonDict:
    """Marks a field that earlier versions lacked or filled in differently. value: the value in runs of these versions.

    Such a run keeps that value if its frozen recipe lacks the key, and if a later launch does not set the key.
    """
    return {"earlier": value}


class MatchMaking(Rules):
    """How contestants are paired (section 2, "Match-Making System")."""

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
    """The scale of an update in the n-th combat of an iteration (n from 1): max(minimum, start * decay^(n / decay_combats)) / divisor.

    A number instead of a section is a constant kappa.
    """

    start: float = Field(default=1.0, gt=0, description="before any decay and division")
    minimum: float = Field(default=0.0, ge=0, description="the decay stops here; before division")
    decay: float = Field(
        default=1.0, gt=0, le=1, description="kappa is multiplied by this every decay_combats; 1: constant"
    )
    decay_combats: float = Field(
        default=10.0, gt=0, description="combats after which kappa is multiplied by decay"
    )
    divisor: float = Field(default=1.0, gt=0, description="kappa is divided by this, after minimum")

    @model_validator(mode="before")
    @classmethod
    def _constant(cls, given: Any) -> Any:
        return {"start": given} if isinstance(given, (int, float)) and not isinstance(given, bool) else given

    def at(self, n: int) -> float:
        """kappa for the n-th combat of the iteration, n >= 1."""
        return float(max(self.minimum, self.start * self.decay ** (n / self.decay_combats)) / self.divisor)


class Deviation(Rules):
    """sigma, how much a reputation has changed recently."""

    initial: float = Field(default=0.5, gt=0, description="sigma until there are two changes")
    minimum: float = Field(default=0.1, gt=0, description="sigma_min, outside the root")
    window: int = Field(default=10, ge=2, description="N, the number of recent changes that count")
    unit: Literal["iteration", "combat"] = Field(
        default="iteration", description="one change is the change over an iteration, or over a combat"
    )
    ddof: Literal[0, 1] = Field(default=1, description="1: sample standard deviation, 0: population")
    keep_window: bool = Field(
        default=True,
        description="carry the changes into the next iteration; sigma itself always carries over. With false and unit iteration, sigma never changes",
    )


class Reputation(Rules):
    """R and its update (equation 1). `preset` sets the keys that are left out: `paper`, or `authors` for the behaviour of their released code."""

    preset: Literal["paper", "authors"] = Field(
        default="paper",
        description="sets the keys of this section that the recipe leaves out; authors also sets match.first, judging.equal, "
        "reweighting.first_iteration and reweighting.last_iteration",
    )
    initial: float = Field(default=1000.0, gt=0, description="R of every model at the start")
    floor: float = Field(default=1.0, gt=0, description="R never falls below this")
    kappa: Kappa = Kappa()
    epsilon: float = Field(default=0.01, gt=0, description="smallest value of |Phi(z_i) - Phi(z_j)|")
    deviation: Deviation = Deviation()
    update: Literal["simultaneous", "sequential"] = Field(
        default="simultaneous",
        description="update both contestants from one snapshot, or the second from the first's new R",
    )
    labels: Literal["live", "final"] = Field(
        default="live",
        description="weight of a judge in labels: R at that combat (times omega with omega judges), or R at the end of the iteration without omega",
    )
    omega: Literal["judges", "contestants"] = Field(
        default="judges",
        description="omega multiplies the judges' reputations, or the contestants' own scores in the update (never in labels)",
    )
    frozen: bool = Field(
        default=False,
        strict=True,
        description="ablation: reputations never change; reweighting is then off unless reweighting.enabled is given",
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
    """The values that the given section `reputation` of a recipe sets in other sections, where those leave them out."""
    if not isinstance(reputation, dict):
        return {}
    filled = _AUTHORS_ELSEWHERE if reputation.get("preset") == "authors" else {}
    if reputation.get("frozen") is True:
        # C.1 picks the lowest reputation; when reputations are frozen, there is none.
        filled = overlay(filled, {"reweighting": {"enabled": False}})
    return filled


class Reweighting(Rules):
    """omega, the judging weight (appendix C.1): each iteration permanently down-weights one more low-ranked model."""

    enabled: bool = Field(
        default=True,
        description="false: ablation without down-weighting; with reputation.frozen the default is false",
        json_schema_extra=earlier(True),
    )
    gamma: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="a model that is down-weighted in iteration t gets omega = min(1, gamma * (t - first_iteration)), permanently",
    )
    first_iteration: int = Field(
        default=2,
        ge=1,
        description="t of the first down-weighting, which sets omega to 0; authors: 3",
    )
    last_iteration: int | None = Field(
        default=None,
        ge=1,
        description="t of the last down-weighting; later, omega does not change; null: no last one; authors: 8",
        json_schema_extra=earlier(None),
    )


class Preferences(Rules):
    """Which combats become preference pairs."""

    tie_tolerance: float = Field(
        default=1e-9, ge=0, description="a gap of at most this is a tie and makes no pair (score points)"
    )
    min_margin: float = Field(
        default=0.0, ge=0, le=9, description="a gap below this makes no pair (score points)"
    )


def overlay(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`below` updated with the keys of `above`, recursively."""
    merged = dict(below)
    for key, value in above.items():
        inner = merged.get(key)
        merged[key] = overlay(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged

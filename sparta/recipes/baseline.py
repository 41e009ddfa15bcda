"""What methods that align one model alone are told beside the keys that they share with Sparta: the baselines of the paper (section 3)."""

from pydantic import Field

from sparta.arena.rules import Rules


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
    length_control: float = Field(
        default=0.1,
        ge=0,
        lt=0.5,
        description="rho of meta_rewarding: chosen is the shortest candidate in the upper share rho of the scores' range, rejected the longest in the lower; "
        "0: the best and the worst",
    )

"""stats.json: counts and measurements of an iteration, for people and reports; no hash covers it and no result depends on it."""

import msgspec

from sparta.store.records import Vote


class JudgeStats(msgspec.Struct, frozen=True):
    """Votes of one judge. missing: on responses that had text. cut: with a shortened response. sum: of its scores, for their mean.

    unanswered: of those missing, where its thinking never ended.
    """

    votes: int = 0
    missing: int = 0
    retried: int = 0
    cut: int = 0
    sum: float = 0.0
    prompt_tokens: int = 0
    new_tokens: int = 0
    unanswered: int = 0

    def counting(self, vote: Vote, readable: bool) -> "JudgeStats":
        """With one more vote; a missing vote on an empty response is not held against the judge."""
        if vote.score is None and not readable:
            return self
        return JudgeStats(
            votes=self.votes + 1,
            missing=self.missing + (vote.score is None),
            retried=self.retried + (vote.tries > 1),
            cut=self.cut + (vote.cut > 0),
            sum=self.sum + (vote.score or 0.0),
            prompt_tokens=self.prompt_tokens + vote.prompt_tokens,
            new_tokens=self.new_tokens + vote.new_tokens,
            unanswered=self.unanswered + (not vote.answered),
        )

    @property
    def share_missing(self) -> float:
        return self.missing / self.votes if self.votes else 0.0


class PhaseStats(msgspec.Struct, frozen=True):
    """Cost of one phase. seconds: from dealing out to the last task's end, summed over attempts. busy: seconds of tasks. loads: bases loaded.

    load_seconds: what these loads took. cost: as it was dealt (see sparta/phases/token_costs.py), of tasks that came to their end. work_seconds:
    what those tasks took, loads apart, so that cost / work_seconds is the throughput of one task. gpu_seconds, gpu_idle: GPU-seconds used, and
    the share of those that were there which was not; sparta/cluster/gpu_time.py defines both.
    """

    items: int
    seconds: float
    busy: float
    loads: int
    tasks: int
    attempts: int
    gpu_seconds: float = 0.0
    gpu_idle: float | None = None
    load_seconds: float = 0.0
    cost: float = 0.0
    work_seconds: float = 0.0


class TokenCounts(msgspec.Struct, frozen=True):
    """What an iteration, or a run, came to in tokens. generated: by models, thinking and further tries included. read: prompts of what was generated,
    each try's, and what preference models read. trained: of training examples, both sides and all epochs, over all members.
    """

    generated: int = 0
    read: int = 0
    trained: int = 0

    def __add__(self, other: "TokenCounts") -> "TokenCounts":
        return TokenCounts(
            self.generated + other.generated, self.read + other.read, self.trained + other.trained
        )

    @property
    def total(self) -> int:
        return self.generated + self.read + self.trained

    @property
    def in_words(self) -> str:
        return f"{self.generated:,} generated, {self.read:,} read, {self.trained:,} trained on"


FEW_PAIRS = 0.1
"""The share of combats that must make pairs for an iteration to be worth its training."""


class IterationStats(msgspec.Struct, frozen=True):
    """One iteration. reasons: combats by what became of them; wins, losses: by model, of combats that made a pair.

    too_long: prompts that left no room for a response. unanswered: responses whose thinking never ended. cut_responses: at the token limit. votes_saved: that nobody was asked for,
    as the answers were equal or one was empty. dropped_pairs: by model, pairs that could not be trained on. mean_losses: by model, nats.
    gpu_seconds, gpu_idle: as in PhaseStats, of all its phases together. unit: what is counted where it says combats: prompts of a method without. tokens: once it is committed.
    """

    combats: int
    reasons: dict[str, int]
    uniform_juries: int
    wins: dict[str, int]
    losses: dict[str, int]
    judges: dict[str, JudgeStats]
    response_tokens: int
    too_long: int = 0
    votes_saved: int = 0
    dropped_pairs: dict[str, int] = {}
    mean_losses: dict[str, float] = {}
    phases: dict[str, PhaseStats] = {}
    gpu_seconds: float = 0.0
    gpu_idle: float | None = None
    unanswered: int = 0
    cut_responses: int = 0
    unit: str = "combats"
    tokens: TokenCounts = TokenCounts()

    @property
    def pairs(self) -> int:
        """Combats that made a preference pair."""
        return self.reasons.get("pair", 0)

    @property
    def in_words(self) -> str:
        """How many pairs came of the combats, and what became of the others."""
        share = f" ({self.pairs / self.combats:.0%})".replace("%", " %") if self.combats else ""
        others = [
            f"{count:,} {reason}" for reason, count in self.reasons.items() if count and reason != "pair"
        ]
        cut = f"; {self.cut_responses:,} responses were cut at the token limit" if self.cut_responses else ""
        unused = f", not used: {', '.join(others)}" if others else ""
        return f"{self.pairs:,} preference pairs from {self.combats:,} {self.unit}{share}{unused}{cut}"

    @property
    def warning(self) -> str:
        """A sentence where so few combats made pairs that the models hardly learn; empty otherwise."""
        if not self.combats or self.pairs >= FEW_PAIRS * self.combats:
            return ""
        others = [(count, reason) for reason, count in self.reasons.items() if count and reason != "pair"]
        most = f"; most of the others are {max(others)[1]}" if others else ""
        return (
            f"only {self.pairs:,} of {self.combats:,} {self.unit} made a pair{most}: the models learn next to nothing from this iteration. Look at "
            f"its {'combats.jsonl' if self.unit == 'combats' else 'rankings.jsonl'}, and change the prompts, generation.temperature, or how judges vote"
        )

"""stats.json: counts and measurements of an iteration for people and reports. No hash covers it and no result depends on it."""

from collections.abc import Mapping
from typing import Literal

import msgspec

from sparta.store.records import Vote


class JudgeStats(msgspec.Struct, frozen=True):
    """Votes of one judge. missing: votes on responses with text. cut: votes with a shortened response. sum: of its scores.

    unanswered: missing votes whose thinking never ended.
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
        """These stats with one more vote; a missing vote on an empty response does not count against the judge."""
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
    """Cost of one phase. seconds: from assignment to the last task's end, summed over attempts. busy: summed over tasks. loads: bases loaded.

    load_seconds: time of these loads. cost: estimated cost (see sparta/phases/token_costs.py) of tasks that completed. work_seconds: time of those
    tasks without loads, so cost / work_seconds is the throughput of one task. gpu_seconds, gpu_idle: GPU-seconds used, and the idle share of those
    available; sparta/cluster/gpu_time.py defines both. parts: seconds of all its tasks by what they were spent on, as in TimeAccount.
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
    parts: dict[str, float] = {}


class TimeAccount(msgspec.Struct, frozen=True):
    """Where the time of an iteration went; sparta/cluster/account.py makes it. The parts and `idle` add up to places x seconds.

    unit: what a place is: a GPU or, where no task held one, a task. places: how many there were, a mean in a sum of accounts. seconds: by the clock. parts: GPU-seconds or
    task-seconds by what they were spent on: `start` (of engines; its stages that are known are parts of their own: `start weights`, `start compile`,
    `start graphs`), `train set-up`, `train`, the names of other phases, and where a place is a task also `steps`.
    """

    unit: Literal["GPU", "task"]
    places: float
    seconds: float
    parts: dict[str, float]
    idle: float

    @property
    def whole(self) -> float:
        """All GPU-seconds or task-seconds that there were."""
        return self.places * self.seconds

    @property
    def used(self) -> float:
        return sum(self.parts.values())

    @property
    def idle_share(self) -> float:
        """From 0 to 1."""
        there = self.used + self.idle
        return self.idle / there if there else 0.0

    def __add__(self, other: "TimeAccount") -> "TimeAccount":
        """Both together, of one unit. The number of places is then the mean over the time."""
        parts = {
            name: self.parts.get(name, 0.0) + other.parts.get(name, 0.0)
            for name in {**self.parts, **other.parts}
        }
        seconds = self.seconds + other.seconds
        return TimeAccount(
            self.unit,
            (self.whole + other.whole) / seconds if seconds else max(self.places, other.places),
            seconds,
            parts,
            self.idle + other.idle,
        )


class TokenCounts(msgspec.Struct, frozen=True):
    """Tokens of an iteration or a run. generated: including thinking and further tries. read: prompts of every try, and the inputs of preference
    models. trained: both sides of the training examples, times epochs, summed over members.
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


def not_used(reasons: Mapping[str, int]) -> str:
    """For a person, how many prompts or combats made no pair, by reason; empty if all made one."""
    others = [f"{count:,} {reason}" for reason, count in reasons.items() if count and reason != "pair"]
    return f", not used: {', '.join(others)}" if others else ""


FEW_PAIRS = 0.1
"""Below this share of combats that made pairs, an iteration gets a warning."""


class IterationStats(msgspec.Struct, frozen=True):
    """One iteration. reasons: combats by result; wins, losses: by model, of combats that made a pair.

    too_long: prompts that left no room for a response. unanswered: responses whose thinking never ended. cut_responses: responses cut at the token
    limit. votes_saved: votes not requested because the answers were equal or one was empty. dropped_pairs: by model, pairs that could not be
    trained on. mean_losses: by model, in nats. gpu_seconds, gpu_idle: of all phases together; the idle share is that of `account` (earlier versions
    wrote that of the GPUs that tasks held). unit: what `combats` counts; methods without combats count prompts. tokens: set when the iteration is
    committed. account: None where an earlier version measured it.

    comparisons: of judgements by a meta-judge, or of candidates by a preference model; `votes` of it were asked for. judgement_reasons: prompts
    whose judgements were compared, by the result: "pair", or why there is no pair of judgements.
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
    comparisons: JudgeStats | None = None
    judgement_reasons: dict[str, int] = {}
    account: TimeAccount | None = None

    @property
    def votes(self) -> int:
        """Votes of all judges."""
        return sum(judge.votes for judge in self.judges.values())

    @property
    def missing_votes(self) -> int:
        return sum(judge.missing for judge in self.judges.values())

    @property
    def pairs(self) -> int:
        """Combats that made a preference pair."""
        return self.reasons.get("pair", 0)

    @property
    def in_words(self) -> str:
        """The number of pairs from combats, the results of the other combats, and what is missing, for a person."""
        share = f" ({self.pairs / self.combats:.0%})".replace("%", " %") if self.combats else ""
        cut = f"; {self.cut_responses:,} responses were cut at the token limit" if self.cut_responses else ""
        made = f"{self.pairs:,} preference pairs from {self.combats:,} {self.unit}{share}"
        return f"{made}{not_used(self.reasons)}{cut}{self._missing}"

    @property
    def _missing(self) -> str:
        compared = self.comparisons or JudgeStats()
        counted = (
            (self.missing_votes, self.votes, "votes"),
            (compared.missing, compared.votes, "comparisons"),
        )
        found = [f"{missing:,} of {total:,} {what}" for missing, total, what in counted if missing]
        return f"; missing: {', '.join(found)}" if found else ""

    @property
    def warning(self) -> str:
        """A message where too few combats made pairs for useful training; empty otherwise."""
        if not self.combats or self.pairs >= FEW_PAIRS * self.combats:
            return ""
        others = [(count, reason) for reason, count in self.reasons.items() if count and reason != "pair"]
        most = f"; most of the others are {max(others)[1]}" if others else ""
        return (
            f"only {self.pairs:,} of {self.combats:,} {self.unit} made a pair{most}: training on this iteration has next to no effect. Check "
            f"its {'combats.jsonl' if self.unit == 'combats' else 'rankings.jsonl'}, and change the prompts, generation.temperature, or how judges vote"
        )

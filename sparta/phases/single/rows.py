"""The rows of methods that align one model. state/README.md documents their fields for users; store/row_schema.py says how rows get new fields."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from msgspec import Meta

from sparta.chat.template import Message
from sparta.store import files
from sparta.store.records import Count, FinishReason, Row, Trained
from sparta.store.row_schema import Record
from sparta.store.run import Run
from sparta.store.shards import iter_shards


class Draw(Record, frozen=True):
    """plan.jsonl: one prompt of the iteration."""

    draw_id: str
    prompt_id: str
    messages: tuple[Message, ...]


class Candidate(Record, frozen=True):
    """candidates/: one of the model's answers to a prompt. number: from 0. Other fields as in a response."""

    draw_id: str
    number: Count
    model: str
    text: str
    token_ids: tuple[int, ...]
    tokenizer: str
    prompt_tokens: Count
    new_tokens: Count
    finish_reason: FinishReason
    seconds: float = 0.0
    thinking: str = ""
    answered: bool = True

    @property
    def key(self) -> str:
        return candidate_key(self.draw_id, self.number)

    @property
    def answer(self) -> str:
        """The text to judge and compare; "" if there is no answer."""
        return "" if self.finish_reason == "prompt_too_long" else self.text


class Judgement(Record, frozen=True):
    """judgements/: one vote of the model on one of its candidates. round: number of the vote on this candidate, from 0.

    token_ids, tokenizer: of the judge's last try, only if the method trains on judgements. prompt: the judge prompt, likewise, and only in round 0,
    because all rounds have the same. Other fields as in a vote.
    """

    draw_id: str
    number: Count
    round: Count
    judge: str
    score: Annotated[float, Meta(ge=1, le=10)] | None
    raw: str
    tries: Annotated[int, Meta(ge=1)]
    prompt_tokens: Count
    new_tokens: Count
    cut: Count
    seconds: float = 0.0
    thinking: str = ""
    answered: bool = True
    token_ids: tuple[int, ...] = ()
    tokenizer: str = ""
    prompt: str = ""

    @property
    def key(self) -> str:
        return judgement_key(self.draw_id, self.number, self.round)


class Comparison(Record, frozen=True):
    """comparisons/: which of two judgements of candidate `number` the model prefers. better: None if the reply could not be read.

    first, second: rounds of the judgements, in the order in which the judge saw them. Other fields as in a vote.
    """

    draw_id: str
    number: Count
    first: Count
    second: Count
    judge: str
    better: Literal["first", "second"] | None
    raw: str
    tries: Annotated[int, Meta(ge=1)]
    prompt_tokens: Count
    new_tokens: Count
    seconds: float = 0.0
    thinking: str = ""
    answered: bool = True

    @property
    def key(self) -> str:
        return comparison_key(self.draw_id, self.first, self.second)


class WinRates(Record, frozen=True):
    """win_rates/: the probability that each candidate beats each other one. probabilities: [n, n], of the row's candidate against the column's;
    1/2 on the diagonal, None if one of the two has no answer or no grade. read_tokens: tokens that the preference model read.
    """

    draw_id: str
    probabilities: tuple[tuple[Annotated[float, Meta(ge=0, le=1)] | None, ...], ...]
    read_tokens: Count = 0
    seconds: float = 0.0

    @property
    def key(self) -> str:
        return self.draw_id


class Ranking(Record, frozen=True):
    """rankings.jsonl: the result of a draw. scores, votes: by candidate, its score (None if it has none) and the number of votes behind it. chosen,
    rejected: numbers of candidates. reason: "pair", or why there is no pair.
    """

    draw_id: str
    scores: tuple[float | None, ...]
    votes: tuple[Count, ...]
    chosen: Count | None
    rejected: Count | None
    reason: str


def candidate_key(draw_id: str, number: int) -> str:
    return f"{draw_id}/{number}"


def judgement_key(draw_id: str, number: int, round: int) -> str:
    return f"{draw_id}/{number}/{round}"


def comparison_key(draw_id: str, first: int, second: int) -> str:
    return f"{draw_id}/{first}-{second}"


def read_draws(run: Run, t: int) -> list[Draw]:
    """The prompts of iteration t, in the order of the plan."""
    return list(files.read_rows(run.iteration(t).plan, Draw))


def read_candidates(run: Run, t: int) -> Mapping[str, Sequence[Candidate]]:
    """The candidates of iteration t so far, by draw, ordered by number."""
    found: dict[str, list[Candidate]] = {}
    for row in iter_shards(run.iteration(t).root / CANDIDATES, Candidate):
        found.setdefault(row.draw_id, []).append(row)
    return {draw_id: sorted(rows, key=lambda row: row.number) for draw_id, rows in found.items()}


KINDS: Mapping[str, type[Row]] = {
    "candidates": Candidate,
    "judgements": Judgement,
    "comparisons": Comparison,
    "win_rates": WinRates,
    "training": Trained,
}
"""The row type of each folder of shards that an iteration may have."""

CANDIDATES, JUDGEMENTS, COMPARISONS, WIN_RATES, RANKINGS = (
    "candidates",
    "judgements",
    "comparisons",
    "win_rates",
    "rankings.jsonl",
)
"""Names in the folder of an iteration."""

"""The rows of methods that align one model. Their fields are documented for users in state/README.md; how rows grow: see store/row_schema.py."""

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
    """plan.jsonl: one prompt of the iteration, in the order of the plan."""

    draw_id: str
    prompt_id: str
    messages: tuple[Message, ...]


class Candidate(Record, frozen=True):
    """candidates/: one of the answers that the model gave to a prompt. Fields as of a response, `number` counts them from 0."""

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
        """What is judged and compared; "" where there is no answer."""
        return "" if self.finish_reason == "prompt_too_long" else self.text


class Judgement(Record, frozen=True):
    """judgements/: one vote of the model on one of its candidates. round: which of the votes on this candidate, from 0.

    Other fields as of a vote. token_ids, tokenizer: of what the judge wrote last, where it is learned from; empty elsewhere. prompt: what it was asked,
    likewise, and of the first round alone, as all rounds are asked the same.
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
    """comparisons/: which of two judgements of candidate `number` the model finds better; None where it could not be read. first, second: rounds, in the
    order in which they were shown. Other fields as of a vote.
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
    """win_rates/: how likely each candidate beats each other one, as the preference model has it. probabilities: [n, n], of the row's candidate against the
    column's; 1/2 against itself, None where one of the two has no answer or could not be told. read_tokens: what the model read for it.
    """

    draw_id: str
    probabilities: tuple[tuple[Annotated[float, Meta(ge=0, le=1)] | None, ...], ...]
    read_tokens: Count = 0
    seconds: float = 0.0

    @property
    def key(self) -> str:
        return self.draw_id


class Ranking(Record, frozen=True):
    """rankings.jsonl: what became of a draw. scores, votes: of each candidate, in their order: its score, None where it has none, and how many votes
    counted. chosen, rejected: numbers of candidates. reason: "pair", or why there is none.
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
    """The candidates of iteration t that there are, by draw, in their order."""
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
"""All folders of shards that an iteration may have, with the type of their rows."""

CANDIDATES, JUDGEMENTS, COMPARISONS, WIN_RATES, RANKINGS = (
    "candidates",
    "judgements",
    "comparisons",
    "win_rates",
    "rankings.jsonl",
)
"""Where the rows of an iteration are, in its folder."""

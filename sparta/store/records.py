"""The rows of the state: one record type a file, typed and validated when read.

Fields are documented for users in state/README.md. A row's `key` says which work it is the result of; two rows of one key must be equal
except for `MEASUREMENTS`. Models are named, never numbered: a file can be read without the pool.

To add a field: put it last, with a default that means what rows without it meant. Nothing else; see row_schema.py.
"""

from typing import Annotated, ClassVar, Literal, Protocol

import msgspec
from msgspec import Meta

from sparta.chat.template import Message
from sparta.store.row_schema import Record

SCHEMA_VERSION = 1

Count = Annotated[int, Meta(ge=0)]
FinishReason = Literal["stop", "length", "prompt_too_long"]


class Row(Protocol):
    """A record that phases write: it knows the key of the work that it is the result of."""

    @property
    def key(self) -> str: ...


class Instruction(Record, frozen=True):
    """data/train.jsonl: one instruction of X, as used."""

    prompt_id: Annotated[str, Meta(min_length=1)]
    messages: Annotated[tuple[Message, ...], Meta(min_length=1)]


class Combat(Record, frozen=True):
    """plan.jsonl: one prompt and its two contestants, in the order of the plan."""

    combat_id: str
    prompt_id: str
    messages: tuple[Message, ...]
    models: tuple[str, str]


class Response(Record, frozen=True):
    """responses/: what one contestant answered.

    text: the answer alone; what was thought before it is `thinking`. answered: False where the thinking never ended, so that there is no answer.
    token_ids: the completion as sampled, its end-of-sequence token included where it was produced; empty from an endpoint.
    tokenizer: fingerprint of the tokenizer the ids belong to; empty from an endpoint.
    """

    combat_id: str
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
        return response_key(self.combat_id, self.model)


class Vote(Record, frozen=True):
    """votes/: one judge's score of one response; None is a missing vote, never a default.

    raw: what the judge wrote last (for `expected` the working, if any). tries: attempts spent. new_tokens, seconds: of all of them. cut: tokens
    of the response left out of the prompt. thinking: before `raw`. answered: False where the last try was a thought that never ended.
    """

    combat_id: str
    contestant: str
    judge: str
    score: Annotated[float, Meta(ge=1, le=10)] | None
    raw: str
    tries: Annotated[int, Meta(ge=1)]
    prompt_tokens: Count = 0
    new_tokens: Count = 0
    cut: Count = 0
    seconds: float = 0.0
    thinking: str = ""
    answered: bool = True

    written_at_default: ClassVar[tuple[str, ...]] = ("prompt_tokens", "new_tokens", "cut")

    @property
    def key(self) -> str:
        return vote_key(self.combat_id, self.contestant, self.judge)


class Result(Record, frozen=True):
    """combats.jsonl: what became of a combat in the replay.

    scores: aggregated scores of the two contestants, None where no judge scored both. winner: None where there is no pair.
    reason: "pair", or why there is none (see sparta.arena.preferences.REASONS).
    """

    combat_id: str
    models: tuple[str, str]
    scores: tuple[float, float] | None
    winner: str | None
    reason: str
    jury: Count
    reputations_before: tuple[float, float]
    reputations_after: tuple[float, float]


class Pair(Record, frozen=True):
    """preferences.jsonl: a preference pair. Two-fold fields are in the order chosen, rejected.

    prompt: always null; the question is `messages`. Without such a column TRL takes for the prompt what chosen and rejected begin with, and
    trains without the question. With it TRL stops, and jobs/export_pairs.py writes what it trains on.

    finished: whether the response ended by itself; a response cut off at the token limit is never taught to end there. thinking: what was thought
    before each answer; the token ids hold it too.
    """

    combat_id: str
    messages: tuple[Message, ...]
    chosen: str
    rejected: str
    chosen_token_ids: tuple[int, ...]
    rejected_token_ids: tuple[int, ...]
    tokenizers: tuple[str, str]
    finished: tuple[bool, bool]
    models: tuple[str, str]
    scores: tuple[float, float]
    prompt: None = None
    thinking: tuple[str, str] = ("", "")

    # TRL looks for the column, so it is there although it is null.
    written_at_default: ClassVar[tuple[str, ...]] = ("prompt",)


class Trained(Record, frozen=True):
    """training/: one pool member has learned from the iteration's pairs; its adapter is in place under adapters/<model>/.

    sha256: digest of the adapter's files. pairs: used. dropped: too long for `dpo.max_length`, or without a completion token. first_loss and mean_loss in nats.
    """

    model: str
    sha256: str
    pairs: Count
    dropped: Count
    steps: Count
    first_loss: float | None
    mean_loss: float | None
    tokens: Count
    seconds: float = 0.0

    @property
    def key(self) -> str:
        return self.model


class SftDataInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """data/lessons.json, an entry an expert: what it is trained on.

    data: as the recipe names it. characters: of all messages. sha256: digest of the rows as they are used, in their order. held_out: rows that
    hold a question of validation or test of what the run is scored on, as these were when it began.
    """

    data: str
    rows: Count
    characters: Count
    sha256: str
    held_out: Count = 0


class TrainedExpert(Record, frozen=True):
    """iter_00/training/: an expert of the pool has been trained from data; its adapter is in place under adapters/<model>/.

    sha256: digest of the adapter's files. rows: used. dropped: too long for `pool.sft.max_length` or the context, or without a token to learn.
    Losses in nats: of the first update, of the last one, and the mean of all. tokens: of all rows and epochs, prompts with them.
    """

    model: str
    sha256: str
    rows: Count
    dropped: Count
    steps: Count
    first_loss: float | None
    last_loss: float | None
    mean_loss: float | None
    tokens: Count
    seconds: float = 0.0

    @property
    def key(self) -> str:
        return self.model


class Answer(Record, frozen=True):
    """evals/<task>/<split>/answers-...: what a checkpoint answered to one item.

    grades: by metric, in the metric's own unit, those that a program gives; a metric that could not be graded is left out, and so are those that
    a judge gives (see Grade). choice_logs: log-likelihood (nats) of each choice, where choices are weighed and nothing is written. thinking: before
    the `text`. answered: False where the thinking never ended, so that there is nothing to grade.
    """

    task: str
    checkpoint: str
    item_id: str
    text: str
    grades: dict[str, float]
    prompt_tokens: Count
    new_tokens: Count
    finish_reason: FinishReason
    choice_logs: tuple[float, ...] = ()
    seconds: float = 0.0
    thinking: str = ""
    answered: bool = True

    written_at_default: ClassVar[tuple[str, ...]] = ("choice_logs",)

    @property
    def key(self) -> str:
        return answer_key(self.task, self.checkpoint, self.item_id)


class Grade(Record, frozen=True):
    """evals/<task>/<split>/grades-...: what the judge of the evaluation gave an answer by one metric; None where it could not be read.

    raw: what the judge wrote last. tries: attempts spent. new_tokens, seconds: of all of them. cut: tokens of the answer left out of the prompt.
    thinking, answered: as of a vote.
    """

    task: str
    checkpoint: str
    item_id: str
    metric: str
    score: Annotated[float, Meta(ge=0, le=10)] | None
    raw: str
    tries: Annotated[int, Meta(ge=1)]
    prompt_tokens: Count = 0
    new_tokens: Count = 0
    cut: Count = 0
    seconds: float = 0.0
    thinking: str = ""
    answered: bool = True

    written_at_default: ClassVar[tuple[str, ...]] = ("prompt_tokens", "new_tokens", "cut")

    @property
    def key(self) -> str:
        return grade_key(self.task, self.checkpoint, self.item_id, self.metric)


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """pool.json: one model of the pool at one iteration.

    base: as the recipe names it. adapter: folder relative to the state directory; a copy's is its original's until it is trained. sha256: digest
    of the adapter's files.
    """

    name: str
    base: str
    adapter: str
    sha256: str


def response_key(combat_id: str, model: str) -> str:
    return f"{combat_id}/{model}"


def vote_key(combat_id: str, contestant: str, judge: str) -> str:
    return f"{combat_id}/{contestant}/{judge}"


def answer_key(task: str, checkpoint: str, item_id: str) -> str:
    return f"{task}/{checkpoint}/{item_id}"


def grade_key(task: str, checkpoint: str, item_id: str, metric: str) -> str:
    return f"{task}/{checkpoint}/{metric}/{item_id}"

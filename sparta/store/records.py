"""The rows of the state: one record type a file, typed and validated when read.

state/README.md documents the fields for users. A row's `key` names the work that produced it; two rows with one key must be equal except for
`MEASUREMENTS`. Models are referred to by name, never by number, so a file can be read without the pool.

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
    """A record that phases write, with the key of the work that produced it."""

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
    """responses/: the response of one contestant.

    text: the answer only; the thinking before it is `thinking`. answered: False where the thinking never ended, so there is no answer.
    token_ids: the completion as sampled, including the end-of-sequence token if it was produced; empty from an endpoint. tokenizer: fingerprint
    of the tokenizer of the ids; empty from an endpoint.
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

    raw: the judge's last output (for `expected` the reasoning, if any). tries: attempts made. new_tokens, seconds: of all attempts. cut: tokens of
    the response left out of the prompt. thinking: before `raw`. answered: False where the last attempt's thinking never ended.
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
    """combats.jsonl: the result of a combat in the replay.

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
    """preferences.jsonl: a preference pair. Fields with two entries are in the order chosen, rejected.

    prompt: always null; the prompt is `messages`. Without such a column TRL would use the common prefix of chosen and rejected as the prompt, and
    train without the question. With it TRL stops with an error; jobs/export_pairs.py writes its format.

    finished: False where the response was cut at the token limit; training never teaches a model to stop where a response was cut.
    thinking: the thinking before each answer, which is also part of the token ids.
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

    # TRL checks for the column, so it is written although it is null.
    written_at_default: ClassVar[tuple[str, ...]] = ("prompt",)

    @property
    def iteration(self) -> int:
        """The iteration that made it. A method may train a later one on it again."""
        return int(self.combat_id.partition("-")[0])


class Trained(Record, frozen=True):
    """training/: one pool member was trained on the iteration's pairs; its adapter is in adapters/<model>/.

    sha256: digest of the adapter's files. pairs: used. dropped: pairs too long for `dpo.max_length`, or without a completion token. first_loss,
    mean_loss: in nats.
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
    """data/lessons.json: the training data of one expert.

    data: as the recipe names it. characters: of all messages. sha256: digest of the rows as used, in order. held_out: rows left out because they
    contain a validation or test question of a task that the run is scored on, as of its start.
    """

    data: str
    rows: Count
    characters: Count
    sha256: str
    held_out: Count = 0


class TrainedExpert(Record, frozen=True):
    """iter_00/training/: an expert of the pool was trained from data; its adapter is in adapters/<model>/.

    sha256: digest of the adapter's files. rows: used, one for each answer where the chat template supports thinking. dropped: rows too long for
    `pool.sft.max_length` or the context, or without a token to train on. Losses in nats: of the first update, of the last one, and the mean of all.
    tokens: of all rows and epochs, including prompts.
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
    """evals/<task>/<split>/answers-...: a checkpoint's answer to one item.

    grades: by metric, in the metric's own unit, as computed by a program; metrics that could not be graded are left out, and so are a judge's
    (see Grade). choice_logs: log-likelihood (nats) of each choice, where choices are log-likelihood scored and nothing is generated. thinking:
    before the `text`. answered: False where the thinking never ended, so there is nothing to grade.
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
    """evals/<task>/<split>/grades-...: the evaluation judge's score of an answer by one metric; None where it could not be parsed.

    raw: the judge's last output. tries: attempts made. new_tokens, seconds: of all attempts. cut: tokens of the answer left out of the prompt.
    thinking, answered: as in Vote.
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


class SampledAnswer(Record, frozen=True):
    """evals/<task>/<split>/samples-...: one of several answers that a checkpoint sampled to one item; no score is made of it.

    number: from 0. text, thinking, answered: as in Answer.
    """

    task: str
    checkpoint: str
    item_id: str
    number: Count
    text: str
    prompt_tokens: Count
    new_tokens: Count
    finish_reason: FinishReason
    seconds: float = 0.0
    thinking: str = ""
    answered: bool = True

    @property
    def key(self) -> str:
        return sampled_key(self.task, self.checkpoint, self.number, self.item_id)


class SetGrade(Record, frozen=True):
    """evals/<task>/<split>/set-grades-...: the evaluation judge's score of how diverse a set of sampled answers is; None where it could not be parsed.

    entry: whose answers: an iteration (the first one of each of its models) or a checkpoint (its first `size` ones). size: answers in the set,
    the empty ones included, which the judge does not see. too_long: the set did not fit the judge's context. The others: as in Grade.
    """

    task: str
    entry: str
    item_id: str
    size: Annotated[int, Meta(ge=2)]
    score: Annotated[float, Meta(ge=1, le=10)] | None
    raw: str
    tries: Annotated[int, Meta(ge=1)]
    prompt_tokens: Count
    new_tokens: Count
    seconds: float = 0.0
    thinking: str = ""
    answered: bool = True
    too_long: bool = False

    @property
    def key(self) -> str:
        return set_grade_key(self.task, self.entry, self.size, self.item_id)


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """pool.json: one model of the pool at one iteration.

    base: as the recipe names it. adapter: folder relative to the state directory; a copy of a model shares the original's folder until it is
    trained. sha256: digest of the adapter's files.
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


def sampled_key(task: str, checkpoint: str, number: int, item_id: str) -> str:
    return f"{task}/{checkpoint}/{number}/{item_id}"


def set_grade_key(task: str, entry: str, size: int, item_id: str) -> str:
    return f"{task}/{entry}/{size}/{item_id}"

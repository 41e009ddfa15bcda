"""User data: JSON Lines files named in the recipe, checked line by line, and the task `own` made from them.

Experts are trained on files of the same format (sparta.tasks.sft_data.load). A line is an object with `prompt` (text) or `messages`, and
optionally
  id         text or a whole number; default: p000012 in line 12
  answer     the right answer: a text or a number (digits are kept as typed); with choices, the label of the right one
  choices    label -> text, or a list of texts, which get the labels A, B, ...
  right      labels of all right choices, if there are several
  reference  a complete good answer, for a judge
  level      its skill, subject or difficulty
"""

import re
import string
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from sparta.chat.template import Message
from sparta.errors import SpartaError
from sparta.recipes.schema import Data
from sparta.store.disk import explain
from sparta.tasks.base import Item, Metric, Split
from sparta.tasks.json_text import parse_json
from sparta.tasks.prepared import SPLITS, content, flaw

OPTIONAL = {"reference", "answer", "choices", "right", "level"}
"""Keys for which null means the same as leaving them out."""
_EXPONENT = re.compile(r"-?[0-9]+(\.[0-9]+)?[eE][-+]?[0-9]{1,3}")
KEYS = {"id", "prompt", "messages"} | OPTIONAL


class UserTask:
    """The task `own`: the files of `data`, graded as data.grading says.

    exact: same text, ignoring white space at the ends and counting a run of it as one space; case-sensitive. number: the number that the
    answer states. math: equivalent mathematics. letter: the label that the answer decides for; the choices are appended to the prompt, in
    training too. likelihood: the choice that is most likely under the model. judge: 0 to 10 by evaluation.judge, who sees the `reference`,
    or the right answer if there is none.

    data.grading may change during a run: `items` returns the items as in the files, `posed` adapts them to the grading.
    """

    def __init__(self, data: Data) -> None:
        from sparta.grading import rubrics

        self.data = data
        self.name = "own"
        self.metrics: tuple[Metric, ...] = (
            (Metric("score", top=10.0, rubric=rubrics.GENERAL),)
            if data.grading == "judge"
            else (Metric("accuracy"),)
        )
        self.chat_template = True
        self.max_new_tokens = 512
        self.stop: tuple[str, ...] = ()
        self.likelihood = data.grading == "likelihood"
        # `likelihood` already distinguishes this grading.
        self.grading = "" if self.likelihood else data.grading

    def items(self, split: Split, data: Data) -> Sequence[Item]:
        """All items of `split`, in the order of its file.

        Raises SpartaError naming file and line if an item is invalid, cannot be graded, or is also in another file.
        """
        rows = self._rows(split)
        if split != "train":
            self._refuse_overlap(split, rows)
            for number, item in rows.items():
                if why := self._flaw(item):
                    raise SpartaError(
                        f"{self._path(split)}, line {number}: {item.item_id} {why}; data.grading is {self.data.grading}"
                    )
        return list(rows.values())

    def posed(self, item: Item) -> Item:
        if self.data.grading == "judge" and item.reference is None and item.answer is not None:
            return msgspec.structs.replace(item, reference=item.choices.get(item.answer, item.answer))
        if self.data.grading != "letter" or not item.choices:
            return item
        from sparta.tasks.dataset import multiple_choice

        *before, last = item.messages
        return msgspec.structs.replace(
            item, messages=(*before, Message(last.role, multiple_choice(last.content, item.choices)))
        )

    def in_combat(self, item: Item) -> Item:
        return self.posed(item)

    def plain(self, item: Item) -> tuple[Message, ...]:
        return item.messages

    def grade(self, item: Item, text: str) -> dict[str, float]:
        if self._flaw(item):
            return {}
        right: bool | None = None
        answer = item.answer or ""
        match self.data.grading:
            case "exact":
                right = text.split() == answer.split()
            case "number":
                from sparta.grading import numbers

                right = numbers.same_number(_in_plain_digits(answer), text)
            case "math":
                from sparta.grading import mathematical

                right = mathematical.same_mathematics(_in_plain_digits(answer), text)
            case "letter":
                from sparta.grading import letters

                right = letters.same_letter(item.right or (answer,), text, tuple(item.choices))
        return {} if right is None else {"accuracy": float(right)}

    def score_likelihoods(self, item: Item, logs: Mapping[str, float]) -> dict[str, float]:
        if self._flaw(item):
            return {}
        from sparta.grading import likelihood

        return {"accuracy": likelihood.accuracy(logs, item.right or (item.answer or "",))}

    def _path(self, split: Split) -> Path:
        given: str | None = getattr(self.data, split)
        if given is None:
            raise SpartaError(
                f"the task own has no {split} split: set data.{split} to a file with {', '.join(sorted(KEYS))}"
            )
        return Path(given)

    def _rows(self, split: Split) -> dict[int, Item]:
        """Items by line."""
        return parse(self._path(split), f"data.{split}")

    def _refuse_overlap(self, split: Split, rows: Mapping[int, Item]) -> None:
        """Raise SpartaError if another file has the same question, because training, selection and test must not overlap.

        A question without choices equals the same question with any choices.
        """
        asked = {content(item): number for number, item in rows.items()}
        bare = {content(_bare(item)): number for number, item in rows.items()}
        for other in SPLITS:
            if other == split or getattr(self.data, other) is None:
                continue
            for number, item in self._rows(other).items():
                same = asked.get(content(item)) or asked.get(content(_bare(item)))
                same = same or (None if item.choices else bare.get(content(item)))
                if same:
                    raise SpartaError(
                        f"{self._path(split)}, line {same} asks the same as {self._path(other)}, line {number}: "
                        "take it out of one of them, splits share no item"
                    )

    def _flaw(self, item: Item) -> str | None:
        """Why `item` cannot be graded with data.grading; None if it can."""
        grading = self.data.grading
        if why := flaw(item, answer=grading != "judge", choices=self.likelihood or grading == "letter"):
            return why
        if grading == "judge" and item.reference is None and item.answer is None:
            return "has neither a reference nor an answer"
        if grading == "letter" and set(item.choices) - set(string.ascii_uppercase):
            return f"has choices labelled {', '.join(item.choices)}: give capital letters, or a list of texts"
        if grading == "number":
            from sparta.grading import numbers

            if numbers.number_of(_in_plain_digits(item.answer or "")) is None:
                return f"has the answer {item.answer!r}, which is no number"
        return None


def _in_plain_digits(answer: str) -> str:
    """A right answer with an exponent (1e22, 2.5E-3) written out with all digits. Any other stays as it is."""
    return format(Decimal(answer), "f") if _EXPONENT.fullmatch(answer) else answer


def _bare(item: Item) -> Item:
    """`item` without its choices."""
    return msgspec.structs.replace(item, choices={})


def parse(path: Path, key: str) -> dict[int, Item]:
    """The items of a file by line number. key: the recipe key that names the file. Raises SpartaError naming file and line."""
    items = dict(parse_lines(path, key))
    if not items:
        raise SpartaError(f"{path} has no instructions: at least one is needed, check {key}")
    return items


def parse_lines(path: Path, key: str, answered: bool = False) -> Iterator[tuple[int, Item]]:
    """The line numbers and items of a file, read lazily. answered: messages may end with the assistant's. Raises SpartaError as `parse` does."""
    seen: dict[str, int] = {}
    try:
        # Lines end only with \n: JSON allows other separators, such as U+2028, within a text.
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    item = _item(line.removesuffix("\n"), number, answered)
                except ValueError as error:
                    raise SpartaError(
                        f'{path}, line {number}: {error}; a line is an object such as {{"prompt": "..."}}'
                    ) from None
                if item.item_id in seen:
                    raise SpartaError(
                        f"{path}, line {number}: the prompt id {item.item_id} was used in line {seen[item.item_id]} already: "
                        "give every prompt an id of its own, or leave ids out"
                    )
                seen[item.item_id] = number
                yield number, item
    except (FileNotFoundError, UnicodeDecodeError) as error:
        raise SpartaError(f"the prompt file {path} cannot be read ({error}): check {key}") from error
    except OSError as error:
        raise explain(error, path) from error


def _item(line: str, number: int, answered: bool) -> Item:
    """The item of a line. Raises ValueError with the reason if it is invalid."""
    row = parse_json(line)
    if not isinstance(row, dict):
        raise ValueError(f"expected an object, found {type(row).__name__}")
    if unknown := sorted(row.keys() - KEYS):
        raise ValueError(f"unknown key {unknown[0]}")
    row = {key: value for key, value in row.items() if value is not None or key not in OPTIONAL}
    messages = _messages(row)
    if messages[-1].role != "user" and not (answered and messages[-1].role == "assistant"):
        ending = "the user's or the assistant's" if answered else "the user's"
        raise ValueError(f"the last message must be {ending}")
    item = Item(
        _id(row.get("id", f"p{number:06d}")),
        messages,
        reference=_text(row, "reference"),
        choices=_choices(row.get("choices", {})),
        answer=_text(row, "answer"),
        right=_labels(row.get("right", [])),
        level=_text(row, "level"),
    )
    if why := flaw(item, answer=False, choices=False):
        raise ValueError(f"{item.item_id} {why}")
    try:
        msgspec.json.encode(item)
    except UnicodeEncodeError:
        raise ValueError("it holds half a character (a lone surrogate), which no file can hold") from None
    return item


def _id(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
        raise ValueError("the id is neither text nor a whole number")
    return str(value)


def _messages(row: Mapping[str, Any]) -> tuple[Message, ...]:
    if ("prompt" in row) == ("messages" in row):
        raise ValueError("give either prompt or messages")
    try:
        messages = (
            msgspec.convert(row["messages"], tuple[Message, ...])
            if "messages" in row
            else (Message("user", row["prompt"]),)
        )
    except msgspec.ValidationError as error:
        raise ValueError(f"messages are not a list of role and content ({error})") from None
    if not messages or not all(isinstance(turn.content, str) and turn.content.strip() for turn in messages):
        raise ValueError("the prompt is empty or no text")
    return messages


def _text(row: Mapping[str, Any], key: str) -> str | None:
    value = row.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int, float)) or not str(value).strip():
        raise ValueError(f"{key} is empty or neither a text nor a number")
    return str(value)


def _choices(value: Any) -> dict[str, str]:
    if isinstance(value, list):
        if len(value) > len(string.ascii_uppercase):
            raise ValueError(
                f"choices are more than {len(string.ascii_uppercase)}: there are no more letters"
            )
        value = dict(zip(string.ascii_uppercase, value, strict=False))
    if not isinstance(value, dict) or len(value) == 1:
        raise ValueError("choices are neither an object of label and text nor a list of texts, two at least")
    found = {label: _text(value, label) for label in value}
    if bad := [label for label, text in found.items() if text is None or not label.strip()]:
        raise ValueError(f"choice {bad[0]!r} has no text or no label")
    return {label: text for label, text in found.items() if text is not None}


def _labels(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(label, str) for label in value):
        raise ValueError("right is no list of labels")
    return tuple(value)

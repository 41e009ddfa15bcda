"""The task `own`: a user's data, graded as the recipe says.

Experts are trained on data of the same forms (sparta.tasks.sft_data.load).
"""

import re
import string
from collections.abc import Mapping, Sequence
from decimal import Decimal

import msgspec

from sparta.chat.template import Message
from sparta.errors import SpartaError
from sparta.recipes.data import Data
from sparta.tasks.base import Item, Metric, Split
from sparta.tasks.prepared import SPLITS, content, flaw
from sparta.tasks.user_data.items import UserItems, items_by_place
from sparta.tasks.user_data.sources import source_of

_EXPONENT = re.compile(r"-?[0-9]+(\.[0-9]+)?[eE][-+]?[0-9]{1,3}")


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
        self.notes: tuple[str, ...] = ()
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
        read = self.read(split)
        rows = items_by_place(read)
        if split == "train":
            self.notes = tuple(read.notes)
        else:
            self._refuse_overlap(split, rows)
            for place, item in rows.items():
                if why := self._flaw(item):
                    raise SpartaError(
                        f"{self._title(split)}, {place}: {item.item_id} {why}; data.grading is {self.data.grading}"
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

    def read(self, split: Split) -> UserItems:
        """The items of `split`, not read yet. Raises SpartaError if the recipe names no data for it."""
        source = source_of(self.data, split)
        if source is None:
            raise SpartaError(f"the task own has no {split} split: set data.{split} to a file of questions")
        return UserItems(source, self.data.format, self.data.columns)

    def _title(self, split: Split) -> str:
        return self.read(split).source.title

    def _rows(self, split: Split) -> dict[str, Item]:
        """Items by place."""
        return items_by_place(self.read(split))

    def _refuse_overlap(self, split: Split, rows: Mapping[str, Item]) -> None:
        """Raise SpartaError if another file has the same question, because training, selection and test must not overlap.

        A question without choices equals the same question with any choices.
        """
        asked = {content(item): place for place, item in rows.items()}
        bare = {content(_bare(item)): place for place, item in rows.items()}
        for other in SPLITS:
            if other == split or getattr(self.data, other) is None:
                continue
            for place, item in self._rows(other).items():
                same = asked.get(content(item)) or asked.get(content(_bare(item)))
                same = same or (None if item.choices else bare.get(content(item)))
                if same:
                    raise SpartaError(
                        f"{self._title(split)}, {same} asks the same as {self._title(other)}, {place}: "
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

"""The toy task family: ten skills on short strings of digits or letters, each question with one exact answer of
four characters (one width for all: small judges compare their own answer with a response place by place).

Pure text, no models. A question names its skill and its operands (`add 47 38`); `answer_to` computes the right answer, `slip_on` the
typical mistake of the skill (wrong sign, unchanged string), which careless experts make.

The split of a question depends only on its text, so the splits are disjoint for all seeds.
"""

import hashlib
import random
import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sparta.rng import stream

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class ToyItem:
    """One question. `id` is derived from the question, so it is the same in every draw."""

    id: str
    skill: str
    question: str
    answer: str


@dataclass(frozen=True)
class Skill:
    """operands: draws the operands. answer, slip: the right answer and the typical mistake; they always differ and have the same width."""

    operands: Callable[[random.Random], tuple[str, ...]]
    answer: Callable[..., str]
    slip: Callable[..., str]


def _two_numbers(rng: random.Random) -> tuple[str, ...]:
    return f"{rng.randrange(100):02d}", f"{rng.randrange(100):02d}"


def _even_number(rng: random.Random) -> tuple[str, ...]:
    return (f"{2 * rng.randrange(5000):04d}",)


def _two_long_numbers(rng: random.Random) -> tuple[str, ...]:
    first, second = rng.sample(range(10000), 2)
    return f"{first:04d}", f"{second:04d}"


def _different_digits(rng: random.Random) -> tuple[str, ...]:
    return ("".join(rng.sample(string.digits, 4)),)


def _different_letters(rng: random.Random) -> tuple[str, ...]:
    return ("".join(rng.sample(string.ascii_lowercase, 4)),)


def _add(a: str, b: str) -> str:
    return f"{int(a) + int(b):+04d}"


def _subtracted_instead(a: str, b: str) -> str:
    return _subtract(a, b) if int(b) else _add(a, "10")


def _subtract(a: str, b: str) -> str:
    return f"{int(a) - int(b):+04d}"


def _subtract_with_the_wrong_sign(a: str, b: str) -> str:
    right = _subtract(a, b)
    return ("-" if right[0] == "+" else "+") + right[1:]


def _halve(a: str) -> str:
    return f"{int(a) // 2:04d}"


def _not_halved(a: str) -> str:
    return a if int(a) else "0005"


def _larger(a: str, b: str) -> str:
    return max(a, b)


def _smaller(a: str, b: str) -> str:
    return min(a, b)


def _sort(a: str) -> str:
    return "".join(sorted(a))


def _not_sorted(a: str) -> str:
    return a if a != _sort(a) else a[::-1]


def _reverse(a: str) -> str:
    return a[::-1]


def _reverse_but_the_ends(a: str) -> str:
    return a[0] + a[-2:0:-1] + a[-1]


def _rotate(a: str) -> str:
    return a[1:] + a[0]


def _rotate_the_other_way(a: str) -> str:
    return a[-1] + a[:-1]


def _moved(letter: str, by: int) -> str:
    return string.ascii_lowercase[(string.ascii_lowercase.index(letter) + by) % 26]


def _shift(a: str) -> str:
    return "".join(_moved(letter, 1) for letter in a)


def _mirror(a: str) -> str:
    return a.translate(str.maketrans(string.ascii_lowercase, string.ascii_lowercase[::-1]))


def _as_it_was(a: str) -> str:
    return a


def _swap(a: str) -> str:
    return "".join(a[i + 1] + a[i] for i in range(0, len(a), 2))


def _swap_but_the_last(a: str) -> str:
    return _swap(a[:-2]) + a[-2:]


_SKILLS: dict[str, Skill] = {
    "add": Skill(_two_numbers, _add, _subtracted_instead),
    "subtract": Skill(_two_numbers, _subtract, _subtract_with_the_wrong_sign),
    "halve": Skill(_even_number, _halve, _not_halved),
    "larger": Skill(_two_long_numbers, _larger, _smaller),
    "sort": Skill(_different_digits, _sort, _not_sorted),
    "reverse": Skill(_different_letters, _reverse, _reverse_but_the_ends),
    "rotate": Skill(_different_letters, _rotate, _rotate_the_other_way),
    "shift": Skill(_different_letters, _shift, _as_it_was),
    "mirror": Skill(_different_letters, _mirror, _as_it_was),
    "swap": Skill(_different_letters, _swap, _swap_but_the_last),
}
SKILLS: tuple[str, ...] = tuple(_SKILLS)


def split_of(question: str) -> Split:
    """The split of `question`: about 80 % train, 10 % validation, 10 % test."""
    bucket = hashlib.sha256(question.encode()).digest()[0] % 10
    return "test" if bucket == 0 else "validation" if bucket == 1 else "train"


def draw(skill: str, split: Split, rng: random.Random) -> ToyItem:
    """One random question of `skill` in `split`; draws may repeat."""
    while True:
        operands = _SKILLS[skill].operands(rng)
        question = " ".join((skill, *operands))
        if split_of(question) == split:
            return ToyItem("-".join((skill, *operands)), skill, question, _SKILLS[skill].answer(*operands))


def items(split: Split, n: int, seed: int) -> list[ToyItem]:
    """`n` different questions of `split`, in random order; the counts of any two skills differ by at most one.

    Raises ValueError if a skill has too few different questions in the split.
    """
    found: list[ToyItem] = []
    for place, skill in enumerate(SKILLS):
        wanted = n // len(SKILLS) + (place < n % len(SKILLS))
        rng = stream(seed, "toy", split, skill)
        unique: dict[str, ToyItem] = {}
        for _ in range(100 + 20 * wanted):
            if len(unique) == wanted:
                break
            item = draw(skill, split, rng)
            unique.setdefault(item.id, item)
        if len(unique) < wanted:
            raise ValueError(
                f"the toy skill {skill!r} has fewer than {wanted} questions in the {split} split: ask for fewer"
            )
        found.extend(unique.values())
    stream(seed, "toy", split, "order").shuffle(found)
    return found


def answer_to(question: str) -> str:
    """The right answer to a question."""
    skill, *operands = question.split(" ")
    return _SKILLS[skill].answer(*operands)


def slip_on(question: str) -> str:
    """The typical wrong answer to a question: never the right one, and of the same width."""
    skill, *operands = question.split(" ")
    return _SKILLS[skill].slip(*operands)


def is_right(answer: str, text: str) -> bool:
    """Whether a response is exactly `answer`, ignoring white space around it."""
    return text.strip() == answer

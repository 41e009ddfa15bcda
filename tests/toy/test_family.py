"""The toy task family: exact answers, fixed widths, splits that never meet."""

import string
from collections import Counter

import pytest

from sparta.toy.family import SKILLS, answer_to, is_right, items, slip_on, split_of

SPLITS = ("train", "validation", "test")


def by_hand(skill: str, operands: list[str]) -> str:
    """The answer computed another way than the library does: column by column, letter by letter."""
    word = operands[0]
    match skill:
        case "add":
            carry, columns = 0, ""
            for one, other in zip(reversed(operands[0]), reversed(operands[1]), strict=True):
                carry, digit = divmod(int(one) + int(other) + carry, 10)
                columns = str(digit) + columns
            return "+" + str(carry) + columns
        case "subtract":
            down = operands[0] < operands[1]
            high, low = sorted(operands, reverse=True)
            steps = sum(1 for _ in range(int(low), int(high)))
            return ("-" if down else "+") + str(steps).zfill(3)
        case "halve":
            return next(half for n in range(5000) if int(half := f"{n:04d}") + int(half) == int(word))
        case "larger":
            return next(n for n in operands if all(n >= other for other in operands))
        case "sort":
            return "".join(digit for digit in string.digits if digit in word)
        case "reverse":
            return "".join(reversed(word))
        case "rotate":
            return "".join(word[(i + 1) % len(word)] for i in range(len(word)))
        case "shift":
            return "".join("a" if letter == "z" else chr(ord(letter) + 1) for letter in word)
        case "mirror":
            return "".join(chr(ord("a") + ord("z") - ord(letter)) for letter in word)
        case "swap":
            return word[1] + word[0] + word[3] + word[2]
    raise AssertionError(f"no such skill: {skill}")


@pytest.mark.parametrize("split", SPLITS)
def test_answers_are_right(split):
    for item in items(split, 500, seed=3):
        skill, *operands = item.question.split(" ")
        assert skill == item.skill
        assert item.answer == answer_to(item.question) == by_hand(skill, operands), item.question


def test_splits_are_disjoint_whatever_the_seeds():
    drawn = {split: {i.question for seed in range(5) for i in items(split, 1000, seed)} for split in SPLITS}
    assert drawn["train"].isdisjoint(drawn["validation"])
    assert drawn["train"].isdisjoint(drawn["test"])
    assert drawn["validation"].isdisjoint(drawn["test"])
    assert all(split_of(question) == split for split in SPLITS for question in drawn[split])


def test_the_same_seed_draws_the_same_items_and_another_seed_others():
    assert items("train", 200, seed=1) == items("train", 200, seed=1)
    assert items("train", 200, seed=1) != items("train", 200, seed=2)


def test_ids_and_questions_are_unique_and_skills_balanced():
    sample = items("train", 1005, seed=0)
    assert len(sample) == len({item.id for item in sample}) == len({item.question for item in sample}) == 1005
    counts = Counter(item.skill for item in sample)
    assert set(counts) == set(SKILLS)
    assert max(counts.values()) - min(counts.values()) <= 1


def test_an_id_depends_on_the_question_alone():
    first, second = ({item.question: item.id for item in items("test", 2000, seed)} for seed in (0, 1))
    shared = first.keys() & second.keys()
    assert shared
    assert all(first[question] == second[question] for question in shared)


def test_answers_have_one_width_and_slips_are_wrong_and_as_wide():
    sample = items("train", 2000, seed=0)
    assert {len(item.answer) for item in sample} == {4}
    for item in sample:
        slip = slip_on(item.question)
        assert slip != item.answer
        assert len(slip) == len(item.answer)


def test_more_items_than_there_are_questions_is_refused():
    with pytest.raises(ValueError, match="'add' has fewer than 2000 questions in the test split"):
        items("test", 20000, seed=0)


def test_an_answer_counts_only_when_exact():
    assert is_right("+085", "+085")
    assert is_right("+085", " +085\n")
    assert not is_right("+085", "085")
    assert not is_right("+085", "+085 or +086")
    assert not is_right("+085", "")

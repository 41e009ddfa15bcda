"""Duplicates and overlap are taken out and counted; halves are cut by seed."""

from collections import Counter

from sparta.tasks.base import Item
from sparta.tasks.dataset import user_turn
from sparta.tasks.prepared import content
from sparta.tasks.splits import apart, distinct, halved


def items(*texts: str, **choices: str) -> list[Item]:
    return [Item(f"{place}", user_turn(text), choices=choices) for place, text in enumerate(texts)]


def test_of_items_that_differ_in_case_and_white_space_the_first_is_kept_and_the_others_are_counted() -> None:
    dropped: Counter[str] = Counter()
    kept = distinct(items("What is  it?", "what is\nit? ", "What else?"), dropped, "train")
    assert [item.item_id for item in kept] == ["0", "2"]
    assert dropped == {"train: asks what an earlier one asks": 1}


def test_one_question_with_other_choices_is_another_item() -> None:
    dropped: Counter[str] = Counter()
    both = [*items("Which?", A="this", B="that"), *items("Which?", A="this", B="none")]
    assert distinct(both, dropped, "train") == both
    assert not dropped


def test_training_loses_what_models_are_scored_on() -> None:
    dropped: Counter[str] = Counter()
    kept = apart(items("one", "TWO", "three"), items("two", "four"), dropped)
    assert [item.messages[0].content for item in kept] == ["one", "three"]
    assert dropped == {"train: is scored on in validation or test": 1}


def test_halves_are_the_same_every_time_differ_by_name_and_hold_everything_once() -> None:
    every = items(*(f"{number:04}" for number in range(1319)))
    validation, test = halved(every, "gsm8k", 660)
    assert (len(validation), len(test)) == (660, 659)
    assert sorted(validation + test, key=content) == every
    assert halved(every, "gsm8k", 660) == (validation, test)
    assert halved(every, "another", 660)[0] != validation
    # Fixed: prepared data on two machines, or of two years, must agree.
    assert [int(item.item_id) for item in validation[:5]] == [972, 805, 842, 869, 1313]


def test_halves_do_not_depend_on_the_order_that_items_come_in() -> None:
    every = items(*(f"{number} and more" for number in range(40)), A="this", B="that")
    assert (
        halved(every[::-1], "any", 20) == halved(every[7:] + every[:7], "any", 20) == halved(every, "any", 20)
    )


def test_halves_of_fixed_size_leave_the_rest_out() -> None:
    validation, test = halved(items(*map(str, range(10))), "any", 4, 3)
    assert (len(validation), len(test)) == (4, 3)
    assert not {item.item_id for item in validation} & {item.item_id for item in test}

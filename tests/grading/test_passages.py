"""Finding the answer in a text, and retractions of an answer."""

import time

import pytest

from sparta.grading.boxes import is_box_open
from sparta.grading.passages import is_taken_back, passage_of, statements_in


@pytest.mark.parametrize(
    ("text", "answer", "beyond"),
    [
        ("It is 5.", "It is 5.", ""),
        ("<think>4</think>It is 5.", "It is 5.", ""),
        ("It is 5.\n\nQuestion: next?", "It is 5.\n\n", "Question: next?"),
        ("It is 5.\n### Problem 2: next?", "It is 5.\n", "### Problem 2: next?"),
        ("It is 5.\nQ: next?", "It is 5.\n", "Q: next?"),
        ("It is 5.<|im_end|>user", "It is 5.", "<|im_end|>user"),
        ("It is 5.</s>It", "It is 5.", "</s>It"),
        ("Question: next?\nIt is 5.", "Question: next?\nIt is 5.", ""),
        ("The question: is it 5?", "The question: is it 5?", ""),
        ("", "", ""),
    ],
)
def test_an_answer_ends_where_the_text_runs_on(text: str, answer: str, beyond: str) -> None:
    passage = passage_of(text)
    assert passage is not None
    assert (passage.answer, passage.beyond, passage.whole) == (answer, beyond, answer + beyond)


def test_thinking_that_does_not_end_is_no_answer() -> None:
    assert passage_of("<think>It is 5.") is None


@pytest.mark.parametrize(
    ("after", "taken_back"),
    [
        ("", False),
        (". It has 3 parts.", False),
        (". Wait, that is wrong.", True),
        (" wait,", True),
        (". Hold on", True),
        (". Oops, I made a mistake.", True),
        (". Actually, no.", True),
        (". Let me recheck.", True),
        (". Let me recheck: yes, that is correct.", False),
        (". Wait, is that so? Yes, it checks out.", False),
        (". Wait, is that right? No, it should be 6.", True),
        (". Let me know.", False),
        (". They wait for the bus.", False),
    ],
)
def test_an_answer_can_be_taken_back(after: str, taken_back: bool) -> None:
    assert is_taken_back(f"It is 5{after}", len("It is 5")) == taken_back


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("The answer is 5. It is.", ["5"]),
        ("Answer: **5**\nSo.", ["**5**"]),
        ("**Answer:**\n\n5 of 6", ["5 of 6"]),
        ("### Final Answer\n\n5", ["5"]),
        ("The answer isn't 5", ["5"]),
        ("The answer is 3.5.", ["3.5"]),
        ("答案是42。共3步", ["42"]),
        ("Die Antwort ist 42. Danke", ["42"]),
        ("The answer is 5, no, the answer is 6", ["5, no, the", "6"]),
        ("No idea", []),
    ],
)
def test_statements_are_found_with_what_they_state(text: str, stated: list[str]) -> None:
    found = statements_in(text)
    assert [text[statement.start : statement.end].strip() for statement in found] == stated
    assert [statement.denied for statement in found] == ["n't" in text] * len(found)


@pytest.mark.parametrize(
    ("text", "start", "is_open"),
    [
        (r"\boxed{5} \boxed{", 9, True),
        (r"\boxed{5} \boxed{6}", 9, False),
        (r"\boxed{5} \boxed{\frac{1}{2}", 9, True),
        (r"\boxed{ \boxed{5}", 9, False),
        (r"\boxed{5}", 0, False),
        ("", 0, False),
    ],
)
def test_a_box_that_never_ends_is_open(text: str, start: int, is_open: bool) -> None:
    assert is_box_open(text, start) == is_open


@pytest.mark.parametrize(
    "unit", ["\n", " ", "# ", "question: ", "question:\n", "wait ", "</s>", "<", "answer is ", "answer:\n"]
)
def test_a_long_text_takes_time_in_proportion(unit: str) -> None:
    def seconds(length: int) -> float:
        text = unit * (length // len(unit))
        start = time.process_time()
        passage_of(text)
        statements_in(text)
        is_taken_back(text, 0)
        return time.process_time() - start

    once = min(seconds(10_000) for _ in range(3))
    assert seconds(100_000) < 40 * max(once, 0.01)

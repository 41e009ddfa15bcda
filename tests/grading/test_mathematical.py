"""Grading of mathematical answers."""

import itertools
import json
import os
import signal
import threading
import time

import pytest
from support.scripted_run import ROOT

from sparta.errors import SpartaError
from sparta.grading import mathematical
from sparta.grading.boxes import boxes
from sparta.grading.mathematical import same_mathematics

RAW = ROOT.parent / "shared" / "data" / "math" / "raw"

SAME = [
    (r"\frac{1}{2}", "0.5"),
    (r"\frac{1}{2}", r"$\frac12$"),
    (r"\frac{1}{2}", r"\boxed{\dfrac{2}{4}}"),
    ("5", r"\boxed{3}, so \boxed{5}. Also {3}"),
    ("5", r"\boxed{3}. But no: \boxed{5}"),
    ("5", r"So \fbox{5}."),
    ("5", r"\boxed{x=5}"),
    ("x=5", r"\boxed{5}"),
    ("1,2", r"$\boxed{1}$ and $\boxed{2}$"),
    ("1,2", r"\boxed{2, 1}"),
    ("x^2+1", r"\boxed{1+x^2}"),
    ("(x+1)^2", r"\boxed{x^2+2x+1}"),
    ("(1,2)", r"\boxed{\left(1, 2\right)}"),
    (r"90^\circ", r"\boxed{90}"),
    (r"10\text{ cm}", r"\boxed{10}"),
    (r"10,\!000", "10000"),
    (r"50\%", r"\boxed{50}"),
    (r"\sqrt{8}", r"\boxed{2\sqrt{2}}"),
    ("3+2i", r"\boxed{2i+3}"),
    (r"\text{Monday}", r"\boxed{Monday}"),
    (r"\text{(C)}", r"\boxed{C}"),
    ("4213_5", r"\boxed{4213_{5}}"),
    ("x<3", r"\boxed{(-\infty,3)}"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\boxed{\begin{pmatrix}1\\2\end{pmatrix}}"),
    ("12", "So 5 + 7 = 12."),
    ("1050", r"\boxed{1050.}"),
    (r"\frac{3}{4}.", r"\boxed{\dfrac{3}{4}}"),
    (r"\text{June 20}", r"\boxed{June 20}"),
    (r"\text{B, E, G}", r"\boxed{B, E, G}"),
    (r"\text{4:30 p.m.}", r"\boxed{4:30 p.m.}"),
    (r"111, \! 111, \! 111", r"\boxed{111,111,111}"),
    (r"111, \! 111, \! 111", r"\boxed{111111111}"),
    (r"\left(\frac12,3\right)", r"\boxed{(0.5, 3)}"),
    (r"(-\infty,3]", r"\boxed{x \in (-\infty, 3.0]}"),
    ("(2,-3)", r"\boxed{x=2, y=-3}"),
    ("(2,-3)", r"\boxed{(x,y)=(2,-3)}"),
    ("(1,2),(3,4)", r"\boxed{(3,4),(1,2)}"),
    (r"(1,2)\cup(3,4)", r"\boxed{(3,4)\cup(1,2)}"),
    (r"5\text{ m}^3", r"\boxed{5.0\text{ m}^3}"),
    (r"\frac{1}{2004!}", r"\boxed{1/(2004!)}"),
    ("0.0001", r"\boxed{\frac{1}{10000}}"),
]

OTHER = [
    ("5", ""),
    ("5", "no idea"),
    ("5", r"\boxed{6}"),
    ("5", r"\boxed{5} or rather \boxed{6}"),
    ("5", r"\boxed{5} ... wait: \boxed{6}"),
    ("5", r"The answer is 5. \boxed{6}"),
    ("5", r"\boxed{-5}"),
    ("5", r"\boxed{5, 6}"),
    ("5", r"\boxed{}"),
    ("1,2", r"\boxed{2}"),
    ("(1,2)", r"\boxed{(2,1)}"),
    ("(1,2)", r"\boxed{[1,2]}"),
    ("x^2+1", r"\boxed{y^2+1}"),
    ("x^2+1", r"\boxed{x^2-1}"),
    (r"\frac{1}{3}", r"\boxed{0.33}"),
    (r"\sqrt{2}", r"\boxed{1.414}"),
    (r"\pi", r"\boxed{3.14}"),
    ("50", r"\boxed{0.5}"),
    ("i", r"\boxed{-i}"),
    (r"\text{even}", r"\boxed{\text{odd}}"),
    (r"\text{(C)}", r"\boxed{(D)}"),
    ("4213_5", r"\boxed{4213_6}"),
    ("4213_5", r"\boxed{4214_5}"),
    ("x<3", r"\boxed{x \le 3}"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\boxed{\begin{pmatrix}2\\1\end{pmatrix}}"),
    (r"\text{June 20}", r"\boxed{July 20}"),
    (r"\text{B, E, G}", r"\boxed{B, E}"),
    ("1 2", r"\boxed{12}"),
    ("(3,4)", r"\boxed{3,4}"),
    ("(1,2)", r"\boxed{\frac22, 2}"),
    (r"[-\infty,5)", r"\boxed{(-\infty,5)}"),
    (r"5\text{ m}^3", r"\boxed{5\text{ m}^4}"),
    (r"\frac{1}{2004!}", r"\boxed{\frac{1}{2005!}}"),
    ("0.00001", r"\boxed{0.00002}"),
]


@pytest.mark.parametrize(("gold", "text"), SAME)
def test_the_same_mathematics_is_right_however_it_is_written(gold: str, text: str) -> None:
    assert same_mathematics(gold, text) is True


@pytest.mark.parametrize(("gold", "text"), OTHER)
def test_other_mathematics_is_wrong(gold: str, text: str) -> None:
    assert same_mathematics(gold, text) is False


@pytest.mark.skipif(not RAW.is_dir(), reason="the data sets' raw files are not here")
def test_every_gold_answer_of_math_is_right_against_itself_and_no_other_is() -> None:
    rows = (RAW / "validation.jsonl").read_text(encoding="utf-8").splitlines()
    golds = [json.loads(row)["answer"] for row in rows]
    assert len(golds) == 5000
    text = r"With 3x = 7 we find {x}, so for all 12 of them the answer is $\boxed{%s}$, as {claimed} in 4."
    assert [gold for gold in golds if same_mathematics(gold, text % gold) is not True] == []
    # Another form, which is not the same text.
    changed = {gold: gold.replace(r"\frac{", r"\dfrac{ ") for gold in golds if r"\frac{" in gold}
    assert len(changed) > 400
    assert [gold for gold in changed if same_mathematics(gold, text % changed[gold]) is not True] == []
    # Neighbours, which are equal only as texts; of an equation, its right side counts.
    pairs = [(a, b) for a, b in itertools.pairwise(golds[:1001]) if a.strip() != b.strip() and "=" not in b]
    right = [pair for pair in pairs if same_mathematics(pair[0], rf"\boxed{{{pair[1]}}}")]
    assert right == []


def test_what_cannot_be_told_in_time_is_not_graded_and_the_next_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mathematical, "SECONDS", 1)
    monkeypatch.setattr(mathematical, "_child", None)
    # Powers within C code, which no signal handler of Python's interrupts.
    assert same_mathematics("12", r"\boxed{10^{10^{10}}}") is None
    assert same_mathematics("12", r"\boxed{12}") is True


@pytest.mark.parametrize(
    "text",
    [
        "\ud800 \x00 5",
        "\n\n",
        r"\boxed{" + "(" * 3000 + "5" + ")" * 3000 + "}",
        r"\boxed{" + r"\frac{1}{" * 800 + "2" + "}" * 800 + "}",
        r"\boxed{100000!}",
        "$" * 3000,
        "1 " * 2000,
        "{" * 20_000,
    ],
    ids=lambda text: text[:8].encode("ascii", "replace").decode(),
)
def test_what_a_broken_model_writes_is_wrong_or_not_graded(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mathematical, "SECONDS", 1)
    monkeypatch.setattr(mathematical, "_child", None)
    assert same_mathematics("12", text) in (False, None)
    assert same_mathematics("12", "12") is True


def test_the_limit_is_of_computing_not_of_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mathematical, "SECONDS", 1)
    monkeypatch.setattr(mathematical, "_child", None)
    assert same_mathematics("5", "5") is True
    time.sleep(1.5)
    assert same_mathematics("5", "5") is True


def test_any_thread_may_ask_and_each_gets_its_own_answer() -> None:
    given: dict[int, bool | None] = {}

    def ask(number: int) -> None:
        given[number] = same_mathematics("7", rf"\boxed{{{number}}}")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert given == {number: number == 7 for number in range(12)}


def test_the_child_outlives_what_a_cluster_sends_and_not_the_end_of_its_input() -> None:
    assert same_mathematics("5", "5") is True
    child = mathematical._child
    assert child and child.stdin
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        os.kill(child.pid, number)
    assert same_mathematics("5", "5") is True
    assert mathematical._child is child
    child.stdin.close()
    assert child.wait(30) == 0
    assert same_mathematics("5", "5") is True


def test_a_child_that_cannot_run_is_an_error_and_not_a_grade(
    monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    (tmp_path / "math_verify.py").write_text("raise ImportError('not here')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(mathematical, "_child", None)
    with pytest.raises(SpartaError, match=r"ended with status 1.*requirements/base\.txt"):
        same_mathematics("5", "5")


def test_an_empty_right_answer_is_refused() -> None:
    with pytest.raises(SpartaError, match="empty"):
        same_mathematics(" ", "5")


@pytest.mark.parametrize(
    ("text", "contents"),
    [
        (r"\boxed{5}", ["5"]),
        (r"\boxed {5}", ["5"]),
        (r"\boxed{\frac{1}{2}} and \fbox{3}", [r"\frac{1}{2}", "3"]),
        (r"\boxed{\boxed{5}+1}", [r"\boxed{5}+1"]),
        (r"\boxed{\{1, 2\}}", [r"\{1, 2\}"]),
        (r"\boxed{5", []),
        (r"\boxed{ \boxed{5}", ["5"]),
        (r"} { \boxed{5}", ["5"]),
        (r"\boxed5", []),
        ("", []),
    ],
)
def test_boxes_end_where_their_brace_does(text: str, contents: list[str]) -> None:
    found = boxes(text)
    assert [box.content for box in found] == contents
    assert all(text[box.start : box.end].endswith(box.content + "}") for box in found)

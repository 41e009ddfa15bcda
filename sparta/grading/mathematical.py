r"""Checks whether an answer is mathematically equal to the right one, as in MATH, with math-verify in a separate process.

Compared is the last `\boxed{...}` of the answer, together with boxes separated from it only by `,`, `;`, `and` or `or` (`\boxed{1}` and
`\boxed{2}` answer `1, 2`), without a final full stop. Without a box, it is what the text states as the answer (`the answer is $x = 5$`,
`Answer: Tuesday`); otherwise it is what math-verify finds in the text, which is a number or a formula, never words.
math-verify decides equality: decimals to six places, `50\%` also as 50 and as 0.5, units and degrees ignored, sets in any order, variable
names compared. If the answer is an equation and the right answer is not, only the right side counts.
In addition to math-verify: texts that are equal apart from spaces and `\text` are equal; an inequality equals the interval that it
describes; if both sides name a base (`12_5`) or the power of a unit (`\text{m}^3`), it must be the same; and if the right answer has
`(` or `[` around a list, the answer must have the same brackets. Thinking, and another problem after the answer, are ignored. There is no
grade if the answer is retracted, or if another box begins and is not closed.

A few characters can keep a computer algebra system busy forever (`10^{10^{10}}`) in C code that no exception interrupts, and math-verify's own
time limit uses a signal that only a main thread may set. Therefore it runs in a child process (`verifier.py`), which the kernel kills after
`SECONDS` of CPU time, independent of the machine's load. The answer is then not graded, and a new child takes the next one. It can be called
from any thread; calls are answered one at a time.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

from sparta.errors import SpartaError
from sparta.grading.boxes import Box, boxes, is_box_open
from sparta.grading.inequalities import as_intervals
from sparta.grading.letters import same_letter
from sparta.grading.passages import Statement, is_taken_back, passage_of, statements_in
from sparta.names import installed_by

SECONDS = 10
"""CPU seconds per answer. A typical answer takes 1 ms, the slowest gold answers of MATH 100 ms."""

# Parts without meaning: text commands, thin spaces in numbers and elsewhere, bracket sizes.
_SILENT = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\s*(?=\{)|\\(?:left|right)(?![a-z])|\\[,!;: ]|[${}~]|(?<![0-9])\s+|\s+(?![0-9])"
)
_THOUSANDS = re.compile(r",\s*\\!\s*(?=[0-9]{3}(?![0-9]))")
_NAMING = re.compile(r"=|\\in(?![a-z])")
_UNIT = re.compile(r"\\(?:text|mathrm|mbox)\s*\{[^{}]*[a-z.]\s*\}\s*\^\s*\{?([0-9])\}?")
_FULL_STOP = re.compile(r"(?<!\.)\.(?=[\s$]*\Z)")
_INTERVALS = re.compile(r"\s*(?:\\left\s*)?[\[(].*,", re.DOTALL)
_BETWEEN = re.compile(r"[\s$,;.]*(?:\band\b|\bor\b)?[\s$]*")
_BASED = re.compile(r"-?[0-9A-Z.]+_\{?([0-9]+)\}?")

# Right answers in words, and statements without a box.
_LETTERS = "ABCDEFGH"
_LETTER = re.compile(rf"\\(?:text|textbf|mathrm|mbox)\s*\{{\s*\(?(?P<letter>[{_LETTERS}])\)?\s*\}}")
_WORDS = re.compile(r"\\(?:text|textbf|mathrm|mbox)\s*\{[A-Za-z' -]*[A-Za-z]{2}[A-Za-z' -]*\}|[A-Z][a-z]{2,}")
_SILENT_WORDS = re.compile(r"\\(?:text|textbf|mathrm|mbox)(?![a-z])|[${}*_()\[\]\"“”\\]")
_FIGURES = re.compile(r"[0-9$\\]")
_SAYS = re.compile(r"[0-9A-Za-z]")
_DENIED = re.compile(
    r"(?:not|never)\b(?:.*?\b(?:but|rather|it\s+is|it['’]s)\b(?:\s+rather\b)?\s*(?P<after>.*))?",
    re.IGNORECASE | re.DOTALL,
)
_FORMULA = re.compile(
    r"\$+(?P<dollars>[^$]+)\$+|\\[(\[](?P<brackets>(?:(?!\\[)\]]).)+)\\[)\]]|(?P<bare>(?:(?![A-Za-z]{2})[^\\$]|\\[A-Za-z]++|\\[^A-Za-z()\[\]])++)",
    re.DOTALL,
)

_asking = threading.Lock()
_child: "subprocess.Popen[str] | None" = None
_owner = 0
"""The id of the process that started the child: a fork of this process must not share the pipes."""


def same_mathematics(gold: str, text: str) -> bool | None:
    """Whether the answer `text` equals `gold` (LaTeX, without `$` and box); None if the check times out or the answer is ambiguous.

    Raises SpartaError if `gold` is empty or math-verify cannot be run.
    """
    if not gold.strip():
        raise SpartaError("a right answer is empty: leave out that item, or grade by another rule")
    passage = passage_of(text)
    if passage is None:
        return None
    gold = _THOUSANDS.sub("", _FULL_STOP.sub("", gold))
    here = _same(gold, passage.answer)
    if boxes(passage.answer) or not boxes(passage.beyond) or _stated(passage.answer):
        return here
    # The text may repeat the question before the answer, or continue with another question after it.
    beyond = _same(gold, passage.beyond)
    return beyond if here == beyond or not _FIGURES.search(passage.answer) else None


def _same(gold: str, answer: str) -> bool | None:
    boxed = _last_boxes(answer)
    if boxed is None:
        return _same_in_words(gold, answer)
    said, end = boxed
    if is_box_open(answer, end) or is_taken_back(answer, end):
        return None
    return _same_formula(gold, _THOUSANDS.sub("", said))


def _same_formula(gold: str, said: str) -> bool | None:
    """Compare with the content of a box or a stated formula."""
    if _is_same_text(gold, said):
        return True
    if _differ(_BASED.fullmatch(gold.strip()), _BASED.fullmatch(said.strip())):
        return False
    gold, said = _alike(gold, said)
    if _differ(_UNIT.search(gold), _UNIT.search(said)) or not _same_brackets(gold, said):
        return False
    return _verified(gold, f"\\boxed{{{said}}}")


def _is_same_text(gold: str, said: str) -> bool:
    return _SILENT.sub("", gold).rstrip(".") == _SILENT.sub("", said).rstrip(".")


def _alike(gold: str, said: str) -> tuple[str, str]:
    """Both sides, with an inequality converted to intervals if the other side is an interval."""
    right, given = as_intervals(gold), as_intervals(said)
    if right is None and given is not None and _INTERVALS.match(_NAMING.split(gold)[-1]):
        return gold, given
    if given is None and right is not None and _INTERVALS.match(_NAMING.split(said)[-1]):
        return right, _NAMING.split(said)[-1]
    return gold, said


def _same_in_words(gold: str, text: str) -> bool | None:
    """Compare with an answer without a box: with its stated answer, if any, else with what math-verify finds in it."""
    if letter := _LETTER.fullmatch(gold.strip()):
        return same_letter(letter["letter"], text, _LETTERS)
    last = _stated(text)
    if last is None:
        return _same_word(gold, text, text) if _WORDS.fullmatch(gold.strip()) else _verified(gold, text)
    said = text[last.start : last.end].strip(" \t*_\"'`:")
    if denied := _DENIED.match(said):
        said = denied["after"] or ""
    if not said or last.denied or is_taken_back(text, last.end):
        return None
    if _WORDS.fullmatch(gold.strip()):
        return _same_word(gold, said, text)
    if _is_same_text(gold, said):
        return True
    formula = _FORMULA.fullmatch(said)
    return _same_formula(gold, formula[formula.lastgroup or 0]) if formula else _verified(gold, said)


def _stated(text: str) -> Statement | None:
    """The last statement of an answer that contains a letter or digit."""
    stated = (place for place in reversed(statements_in(text)) if _SAYS.search(text, place.start, place.end))
    return next(stated, None)


def _same_word(gold: str, said: str, text: str) -> bool | None:
    """For a right answer in words: True if the stated answer begins with it, None if it is elsewhere in the text, else False."""
    word = _plain_words(gold)
    if re.match(rf"(?:(?:the|an?|on|in|it\s+is)\s+)*{re.escape(word)}(?!\w)(?!\s+or\b)", _plain_words(said)):
        return True
    return None if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", _plain_words(text)) else False


def _plain_words(text: str) -> str:
    return " ".join(_SILENT_WORDS.sub(" ", text).lower().split())


def _differ(one: re.Match[str] | None, other: re.Match[str] | None) -> bool:
    return one is not None and other is not None and one[1] != other[1]


def _same_brackets(gold: str, said: str) -> bool:
    """False if `gold` is a list in `(` or `[` and `said` has other brackets, or none, around its list."""
    right, given = (_brackets(_SILENT.sub("", _NAMING.split(side)[-1])) for side in (gold, said))
    otherwise = not given and (
        "=" in said or said.lstrip().startswith(("\\{", "\\lbrace", "\\langle", "\\begin"))
    )
    return not right or given is None or right == given or otherwise


def _brackets(side: str) -> str | None:
    """The brackets around a comma-separated list; "" if there are none; None without a comma, or if they close before the end."""
    ends, depth = side[:1] + side[-1:], 0
    if "," not in side:
        return None
    if ends[:1] not in ("(", "["):
        return ""
    for place, sign in enumerate(side):
        depth += (sign in "([") - (sign in ")]")
        if not depth:
            return ends if place == len(side) - 1 else None
    return None


def _last_boxes(text: str) -> tuple[str, int] | None:
    """The contents of the last box and the boxes joined to it, and the position of their end; None if there is no box."""
    run: list[Box] = []
    for box in reversed(boxes(text)):
        if run and not _BETWEEN.fullmatch(text, box.end, run[0].start):
            break
        run.insert(0, box)
    return (", ".join(_FULL_STOP.sub("", box.content) for box in run), run[-1].end) if run else None


def _verified(gold: str, said: str) -> bool | None:
    """The result of math-verify. said: a box or a text."""
    with _asking:
        return _ask([f"\\boxed{{{gold}}}", said])


def _ask(sides: list[str]) -> bool | None:
    global _child, _owner
    if _child is None or _owner != os.getpid() or _child.poll() is not None:
        _child, _owner = _start(), os.getpid()
    assert _child.stdin and _child.stdout
    try:
        _child.stdin.write(json.dumps(sides) + "\n")
        _child.stdin.flush()
        reply = _child.stdout.readline()
    except BrokenPipeError:
        reply = ""
    if reply:
        return bool(json.loads(reply))
    ended, _child = _child.wait(), None
    # Out of CPU time, or stack overflow on a deeply nested input.
    if ended in (-signal.SIGPROF, -signal.SIGSEGV):
        return None
    raise SpartaError(
        f"the process that compares mathematics ended with status {ended}: see its message above; if it names math_verify, "
        f"{installed_by('base')}"
    )


def _start() -> "subprocess.Popen[str]":
    # -P because modules in this folder have names of the standard library. A hash seed because sympy sorts by hash.
    return subprocess.Popen(
        [sys.executable, "-P", str(Path(__file__).with_name("verifier.py")), str(SECONDS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        start_new_session=True,
        env={**os.environ, "PYTHONHASHSEED": "0"},
    )

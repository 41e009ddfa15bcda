r"""Whether an answer is mathematically the right one, as in MATH: math-verify's judgement, in a process apart.

What is compared: the last `\boxed{...}` of the answer, together with boxes that only `,`, `;`, `and` or `or` part from it (`\boxed{1}` and
`\boxed{2}` answer `1, 2`), less a full stop at its end; without a box, what is stated as the answer (`the answer is $x = 5$`, `Answer: Tuesday`); and
without that, what math-verify finds in the text, which is a number or a formula and never words. Two sides are equal as math-verify has it: decimals
to six places, `50\%` also as 50 and as 0.5, units and degrees passed over, the order of a set free, the name of a variable not. Of an equation
in the answer the right side counts, where the right answer is no equation.
Beyond math-verify: what is the same text, apart from spaces and `\text`, is equal; an inequality is the interval that it describes; where both name
a base (`12_5`) or the power of a unit (`\text{m}^3`), it must be the same; and what stands between `(` or `[` and their like must do so in the
answer, too, with the same ones. Thinking, and another problem that the text runs on with, are no part of the answer. There is no grade where the
answer is taken back, or another box is begun and not ended.

A few characters can keep a computer algebra system busy for ever (`10^{10^{10}}`), inside C code that no exception reaches, and math-verify's own
limit is a signal that only a main thread may set. So it runs in a child (`verifier.py`), which the kernel ends after `SECONDS` of its own computing
time, however busy the machine is; the answer is then not graded, and a new child takes the next. Any thread may ask; one is answered at a time.
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
"""Of computing, for one answer; a real one takes a thousandth of a second, the slowest gold answers of MATH a tenth."""

# What says nothing: words' commands, thin spaces within a number and others, sizes of brackets.
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

# Right answers in words, and what is stated without a box.
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
"""The process that started the child: a fork of it must not share the pipes."""


def same_mathematics(gold: str, text: str) -> bool | None:
    """Whether the answer `text` says what `gold` (LaTeX, without `$` and without box) says; None where it takes too long to tell, or a person could
    not tell.

    Raises SpartaError where `gold` is empty, and where math-verify cannot be run.
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
    # The question may have been written once more before it is answered, or another one after the answer.
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
    """Of what a box holds, or of a formula that is stated."""
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
    """Both sides, an inequality as intervals where the other side is not one."""
    right, given = as_intervals(gold), as_intervals(said)
    if right is None and given is not None and _INTERVALS.match(_NAMING.split(gold)[-1]):
        return gold, given
    if given is None and right is not None and _INTERVALS.match(_NAMING.split(said)[-1]):
        return right, _NAMING.split(said)[-1]
    return gold, said


def _same_in_words(gold: str, text: str) -> bool | None:
    """Of an answer without a box: what it states as the answer, where it does so, else what math-verify finds in it."""
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
    """The last statement of an answer that has words or figures."""
    stated = (place for place in reversed(statements_in(text)) if _SAYS.search(text, place.start, place.end))
    return next(stated, None)


def _same_word(gold: str, said: str, text: str) -> bool | None:
    """Of a right answer in words: whether what is stated begins with it; None where it is in the text otherwise."""
    word = _plain_words(gold)
    if re.match(rf"(?:(?:the|an?|on|in|it\s+is)\s+)*{re.escape(word)}(?!\w)(?!\s+or\b)", _plain_words(said)):
        return True
    return None if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", _plain_words(text)) else False


def _plain_words(text: str) -> str:
    return " ".join(_SILENT_WORDS.sub(" ", text).lower().split())


def _differ(one: re.Match[str] | None, other: re.Match[str] | None) -> bool:
    return one is not None and other is not None and one[1] != other[1]


def _same_brackets(gold: str, said: str) -> bool:
    """False where commas part what stands in `(` or `[` in gold, and in others, or in none, in `said`."""
    right, given = (_brackets(_SILENT.sub("", _NAMING.split(side)[-1])) for side in (gold, said))
    otherwise = not given and (
        "=" in said or said.lstrip().startswith(("\\{", "\\lbrace", "\\langle", "\\begin"))
    )
    return not right or given is None or right == given or otherwise


def _brackets(side: str) -> str | None:
    """The brackets around what commas part; "" for none; None without a comma, or where they close before the end."""
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
    """What the last box holds, and those joined to it, and where they end; None where there is no box."""
    run: list[Box] = []
    for box in reversed(boxes(text)):
        if run and not _BETWEEN.fullmatch(text, box.end, run[0].start):
            break
        run.insert(0, box)
    return (", ".join(_FULL_STOP.sub("", box.content) for box in run), run[-1].end) if run else None


def _verified(gold: str, said: str) -> bool | None:
    """What math-verify says; `said` is a box or a text."""
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
    # Out of time; or out of stack, deep in what it was given.
    if ended in (-signal.SIGPROF, -signal.SIGSEGV):
        return None
    raise SpartaError(
        f"the process that compares mathematics ended with status {ended}: its own message stands above; if it names math_verify, "
        f"{installed_by('base')}"
    )


def _start() -> "subprocess.Popen[str]":
    # -P: this folder's modules are named like some of the standard library. A hash seed, for sympy orders by hashes.
    return subprocess.Popen(
        [sys.executable, "-P", str(Path(__file__).with_name("verifier.py")), str(SECONDS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        start_new_session=True,
        env={**os.environ, "PYTHONHASHSEED": "0"},
    )

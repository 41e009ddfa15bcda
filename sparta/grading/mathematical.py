r"""Whether an answer is mathematically the right one, as in MATH: math-verify's judgement, in a process apart.

What is compared: the last `\boxed{...}` of the answer, together with boxes that only `,`, `;`, `and` or `or` part from it (`\boxed{1}` and
`\boxed{2}` answer `1, 2`), less a full stop at its end; without a box, what math-verify finds in the text, which is a number or a formula and never words. Two sides are
equal as math-verify has it: decimals to six places, `50\%` also as 50 and as 0.5, units and degrees passed over, the order of a set free,
the name of a variable not. Of an equation in the answer the right side counts, where the right answer is no equation.
Beyond math-verify: what is the same text, apart from spaces and `\text`, is equal; where both name a base (`12_5`) or the power of a unit
(`\text{m}^3`), it must be the same; and what stands between `(` or `[` and their like must do so in the answer, too, with the same ones.

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
from sparta.grading.boxes import Box, boxes
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
_BETWEEN = re.compile(r"[\s$,;.]*(?:\band\b|\bor\b)?[\s$]*")
_BASED = re.compile(r"-?[0-9A-Z.]+_\{?([0-9]+)\}?")

_asking = threading.Lock()
_child: "subprocess.Popen[str] | None" = None
_owner = 0
"""The process that started the child: a fork of it must not share the pipes."""


def same_mathematics(gold: str, text: str) -> bool | None:
    """Whether the answer `text` says what `gold` (LaTeX, without `$` and without box) says; None where it takes too long to tell.

    Raises SpartaError where `gold` is empty, and where math-verify cannot be run.
    """
    if not gold.strip():
        raise SpartaError("a right answer is empty: leave out that item, or grade by another rule")
    said = _last_boxes(text)
    gold = _THOUSANDS.sub("", _FULL_STOP.sub("", gold))
    if said is None:
        sides = [f"\\boxed{{{gold}}}", text]
    else:
        said = _THOUSANDS.sub("", said)
        if _SILENT.sub("", gold).rstrip(".") == _SILENT.sub("", said).rstrip("."):
            return True
        if _differ(_BASED.fullmatch(gold.strip()), _BASED.fullmatch(said.strip())):
            return False
        if _differ(_UNIT.search(gold), _UNIT.search(said)) or not _same_brackets(gold, said):
            return False
        sides = [f"\\boxed{{{gold}}}", f"\\boxed{{{said}}}"]
    with _asking:
        return _ask(sides)


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


def _last_boxes(text: str) -> str | None:
    """What the last box holds, and those joined to it; None where there is no box."""
    run: list[Box] = []
    for box in reversed(boxes(text)):
        if run and not _BETWEEN.fullmatch(text, box.end, run[0].start):
            break
        run.insert(0, box)
    return ", ".join(_FULL_STOP.sub("", box.content) for box in run) if run else None


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

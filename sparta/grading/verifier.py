"""The process in which math-verify runs, apart from whoever asks; see mathematical.py, which starts it. It imports nothing of this package.

A line in is a JSON list of two texts, the right answer and the answer; a line out is `true` or `false`.
"""

import json
import logging
import os
import resource
import signal
import sys
from typing import Any

MEMORY = 4 << 30
"""Bytes of address space: a number of a billion digits is refused, not computed."""


TINY = 1e-3
"""Below it, six decimal places tell too little."""


def _apart(gold: list[Any], answer: list[Any]) -> bool:
    """Whether two numbers near zero, which are equal to six decimal places, differ by more than a millionth of them."""
    from sympy import Expr, N

    first = [side[0] for side in (gold, answer) if side]
    if len(first) < 2 or not all(isinstance(number, Expr) and number.is_number for number in first):
        return False
    right, said = map(N, first)
    if not (right.is_comparable and said.is_comparable):
        return False
    return bool(right != 0 and abs(right) < TINY and abs(said / right - 1) > 1e-6)


def main() -> None:
    """Answer until the input ends. One argument: the seconds of computing time after which a question ends the process (SIGPROF)."""
    seconds = float(sys.argv[1])
    # It ends with its input, not with what a cluster or a terminal sends to everybody.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Only replies go to whoever asks: a parser's runtime prints when it is in the mood.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    logging.getLogger("math_verify").setLevel(logging.ERROR)

    from math_verify import parse, verify

    # Parsed once before time is taken: the grammar's tables are built then.
    verify(parse("$1$", parsing_timeout=None), parse("$1$", parsing_timeout=None), timeout_seconds=None)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        gold, answer = (parse(side, parsing_timeout=None) for side in json.loads(line))
        same = verify(gold, answer, timeout_seconds=None) and not _apart(gold, answer)
        signal.setitimer(signal.ITIMER_PROF, 0)
        replies.write(f"{json.dumps(bool(same))}\n")
        replies.flush()


if __name__ == "__main__":
    main()

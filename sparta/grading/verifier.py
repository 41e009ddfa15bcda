"""The child process that runs math-verify, started by mathematical.py. It imports nothing of this package.

An input line is a JSON list of two texts, the right answer and the answer; an output line is `true` or `false`.
"""

import json
import logging
import os
import resource
import signal
import sys
from typing import Any

MEMORY = 4 << 30
"""Limit of the address space in bytes: a number with a billion digits raises an error instead of being computed."""


TINY = 1e-3
"""Below this, a comparison of six decimal places is too coarse."""


def _apart(gold: list[Any], answer: list[Any]) -> bool:
    """Whether two numbers near zero, equal to six decimal places, differ by more than one part in a million."""
    from sympy import Expr, N

    first = [side[0] for side in (gold, answer) if side]
    if len(first) < 2 or not all(isinstance(number, Expr) and number.is_number for number in first):
        return False
    right, given = map(N, first)
    if not (right.is_comparable and given.is_comparable):
        return False
    return bool(right != 0 and abs(right) < TINY and abs(given / right - 1) > 1e-6)


def main() -> None:
    """Answer until the input ends. One argument: the CPU seconds after which a comparison kills the process (SIGPROF)."""
    seconds = float(sys.argv[1])
    # The process ends with its input, not on signals that a cluster or a terminal sends to the whole process group.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Only replies go to the parent: the parser's runtime sometimes prints to standard output.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    logging.getLogger("math_verify").setLevel(logging.ERROR)

    from math_verify import parse, verify

    # A first call before the timer starts, because it builds the grammar's tables.
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

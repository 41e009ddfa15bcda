"""A whole state, checked: the run's own files, every committed iteration, the rows of the one in work, the evaluations."""

import time
from collections.abc import Callable, Iterator

import msgspec

from sparta.store.lock import holder
from sparta.store.manifest import last_to_verify, problems_of
from sparta.store.run import Run
from sparta.verify.adapters import findings_in_initial_pool, findings_in_pool
from sparta.verify.begun import problems_of_run
from sparta.verify.finding import Finding, MethodParts, errors_into
from sparta.verify.redo import differences_when_redone
from sparta.verify.rows import findings_in_rows
from sparta.verify.scores import evaluated, findings_in_answers, findings_in_summary

Say = Callable[[str], None]


class Verification(msgspec.Struct, frozen=True):
    """The result of a check. iterations: that were committed and checked, the initial pool included. evaluations: a task and a split each."""

    state: str
    iterations: int
    evaluations: int
    seconds: float
    findings: tuple[Finding, ...]

    @property
    def right(self) -> bool:
        """Whether nothing is wrong; there may be notes."""
        return not any(finding.wrong for finding in self.findings)


def verify_state(run: Run, method: MethodParts, say: Say) -> Verification:
    """Check all of `run`, reading every byte of what is committed. It writes nothing, so the disk may be read-only and the run at work.

    say: told after each part what was found there.
    """
    began, findings = time.monotonic(), list[Finding]()

    def part(name: str, found: Iterator[Finding]) -> None:
        started, new = time.monotonic(), list[Finding]()
        try:
            with errors_into(new, name):
                new.extend(found)
        except (ValueError, LookupError, TypeError, ArithmeticError) as error:
            # A file can be damaged in ways that no check foresees; the other parts are checked nevertheless.
            what = f"{name} could not be checked to its end ({type(error).__name__}: {error}): restore it from a copy"
            new.append(Finding(name, what))
        wrong = sum(finding.wrong for finding in new)
        say(f"{name:16} {f'{wrong} wrong' if wrong else 'right':8} {time.monotonic() - started:6.1f} s")
        for finding in new:
            say(f"  {'wrong' if finding.wrong else 'note'} ({finding.check}): {finding.what}")
        findings.extend(new)

    part("run", (Finding("run", str(problem)) for problem in problems_of_run(run)))
    last = last_to_verify(run.state)
    for t in range(last + 1):
        part(f"iteration {t}" if t else "initial pool", _in_iteration(run, t, method))
    part("work in progress", _in_progress(run, last + 1, method))
    scored = evaluated(run)
    for task, split in scored:
        part(f"{task} {split}", findings_in_answers(run, task, split))
    part("scores", findings_in_summary(run))
    return Verification(str(run.state.root), last + 1, len(scored), time.monotonic() - began, tuple(findings))


def _in_iteration(run: Run, t: int, method: MethodParts) -> Iterator[Finding]:
    """What is wrong with the committed iteration t. If its files are not those that were committed, nothing more is said about them."""
    problems = [
        Finding("manifest", str(problem), t)
        for problem in problems_of(run.state, t, run.info.genesis, method.row_types)
    ]
    yield from problems
    if problems:
        return
    own_rules = t > run.info.inherited or run.info.genesis == run.info.recipe_hash
    if t == 0:
        yield from findings_in_initial_pool(run, own_rules)
        return
    if not own_rules:
        yield Finding(
            "derived files",
            "it was made by the rules of the run that this one branched from, so its derived files were not made again: verify that run too",
            t,
            wrong=False,
        )
    else:
        yield from findings_in_rows(run, t, method.phases(t), committed=True)
        yield from differences_when_redone(run, t, method.phases(t))
    yield from findings_in_pool(run, t, method.learners(t), method.phases(t))


def _in_progress(run: Run, t: int, method: MethodParts) -> Iterator[Finding]:
    """What is wrong with iteration t, which is not committed."""
    driver = holder(run.state)
    if driver is not None and driver.alive:
        yield Finding(
            "rows",
            f"{driver.claim} is at work on the run, so what is not committed yet was not checked",
            t,
            wrong=False,
        )
    elif run.iteration(t).root.is_dir():
        yield from findings_in_rows(run, t, method.phases(t), committed=False)
        if t:
            yield from differences_when_redone(run, t, method.phases(t))

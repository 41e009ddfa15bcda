"""Checks a state from beginning to end, and repairs what can be repaired safely."""

import msgspec

from sparta.commands.resume import require_idle
from sparta.errors import printable
from sparta.methods.registry import method_of, phases_of
from sparta.screen import Screen
from sparta.store.layout import StateDir
from sparta.store.lock import RunLock
from sparta.store.run import Run
from sparta.verify.finding import MethodParts, counted
from sparta.verify.repair import repair
from sparta.verify.state import Verification, verify_state


def verify(state: StateDir, mend: bool, as_json: bool, screen: Screen) -> bool:
    """Check the state, after repairs if `mend`, show what was found, and return whether nothing is wrong. Raises SpartaError where it holds no run."""
    run = Run.open(state)
    method = method_parts(run)
    if mend:
        with RunLock(state, screen.say):
            last = run.state.last_committed()
            require_idle(run, [t for t in run.state.iterations() if last is None or t > last], scores=True)
            repair(run, method, screen.say)
    done = verify_state(run, method, (lambda text: None) if as_json else screen.say)
    if as_json:
        print(printable(msgspec.json.format(msgspec.json.encode(_with_verdict(done))).decode()))
    else:
        screen.say(_in_words(done))
    return done.right


def method_parts(run: Run) -> MethodParts:
    method = method_of(run.recipe)
    return MethodParts(
        phases=lambda t: phases_of(run.recipe, t),
        learners=lambda t: method.learners(run, t),
        row_types=method.row_types(run),
    )


def _with_verdict(done: Verification) -> dict[str, object]:
    return {"right": done.right, **msgspec.structs.asdict(done)}


def _in_words(done: Verification) -> str:
    wrong = sum(finding.wrong for finding in done.findings)
    checked = f"{counted(done.iterations, 'committed iteration')} and {counted(done.evaluations, 'evaluation')}, {done.seconds:.1f} s"
    if wrong:
        return f"{done.state}: {counted(wrong, 'thing')} wrong, see above ({checked})"
    return f"{done.state} is right ({checked})"

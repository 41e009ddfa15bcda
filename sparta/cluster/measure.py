"""What an iteration cost, from its attempts, into stats.json. Measurements only: no hash covers them, no result depends on them."""

from collections.abc import Sequence

import msgspec

from sparta.cluster.attempts import AttemptDir
from sparta.phases.base import Phase
from sparta.phases.stats import IterationStats, PhaseStats
from sparta.store import files
from sparta.store.run import Run


def measure(run: Run, phases: Sequence[Phase], t: int) -> None:
    """Complete stats.json of iteration t with the cost of its phases."""
    path = run.iteration(t).stats
    stats = files.read_json(path, IterationStats)
    costs = {phase.name: cost_of(AttemptDir(run, phase, t)) for phase in phases}
    files.write_json(path, msgspec.structs.replace(stats, phases=costs))


def cost_of(attempts: AttemptDir) -> PhaseStats:
    """Cost of one phase so far; a task that was killed counts up to now only where it said when it ended."""
    items = loads = tasks = 0
    seconds = busy = 0.0
    found = attempts.all()
    for attempt in found:
        records = attempts.records(attempt)
        ends = [record.ended for record in records if record.ended is not None]
        seconds += max(ends, default=attempt.submitted) - attempt.submitted
        busy += sum(record.ended - record.started for record in records if record.ended is not None)
        loads += sum(record.loads for record in records)
        tasks += len(records)
        items += attempt.items
    return PhaseStats(items=items, seconds=seconds, busy=busy, loads=loads, tasks=tasks, attempts=len(found))

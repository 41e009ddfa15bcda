"""Prints a status: tables for people, JSON for programs."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from sparta.names import DEFAULT_STATE, suggested
from sparta.screen import duration, plain_console
from sparta.status.account_table import AccountRow, account_tables, with_total
from sparta.status.collect import IterationStatus, Status
from sparta.status.ended_tasks import EndedTask
from sparta.status.phase_status import PhaseStatus

HEADLINES = {
    "done": "done",
    "failed": "failed: the last launch ended with an error",
    "lost": "failed: a task of the detached launch did not complete",
    "detached": "running without a driver",
    "running": "running",
    "stopped": "stopped: nobody is working on it",
}
ENDED_SHOWN = 5


def as_json(status: Status) -> str:
    """One JSON object; fields are those of sparta.status.collect.Status, with the exit code."""
    fields = {**msgspec.structs.asdict(status), "exit_code": status.exit_code}
    # Pure ASCII, so nothing in it can control a terminal.
    return json.dumps(msgspec.to_builtins(fields), indent=2)


def show_status(status: Status, state: Path) -> None:
    """Print `status`."""
    console = plain_console()
    for line in (*_summary(status, state), *_problems(status), *_time(status)):
        console.print(line, markup=False)
    begun = [entry for entry in status.iterations if _has_begun(entry)]
    # Iteration 0, the initial pool, has other phases, so it gets its own table.
    for entries in ([entry for entry in begun if entry.t == 0], [entry for entry in begun if entry.t > 0]):
        if entries:
            console.print(_phases(entries))
    for entry in [entry for entry in begun if entry.outcome][-1:]:
        console.print(f"iteration {entry.t}: {entry.outcome}", markup=False)
    rows = [AccountRow(f"iteration {entry.t}", entry.account) for entry in begun]
    for table in account_tables("where the time went", with_total(rows)):
        console.print(table)
    _show_queue(status, console)
    if status.standing:
        console.print(_standing(status))
    if status.state in ("failed", "stopped"):
        where = () if state == DEFAULT_STATE else ("--state", state)
        console.print(f"continue with: {suggested('launch', *where)}", markup=False)


def _summary(status: Status, state: Path) -> Iterator[str]:
    last = max((entry.t for entry in status.iterations if entry.committed), default=0)
    yield (
        f"run {status.run_id} ({status.recipe}) in {state}: {_headline(status)}; {last} of {status.planned} iterations committed"
    )
    if status.silence:
        yield f"SLURM did not answer ({status.silence}): queued and running tasks are shown as the files last had them"
    if status.driver:
        yield f"driver: {status.driver}"
    if status.detached:
        yield f"no driver: {status.detached}"


def _problems(status: Status) -> Iterator[str]:
    if status.failure:
        yield f"error ({status.failure.when}): {status.failure.said}"
    for task in status.ended[:ENDED_SHOWN]:
        yield _ending(task, status)
    if len(status.ended) > ENDED_SHOWN:
        yield f"and {len(status.ended) - ENDED_SHOWN} more of its tasks"
    for entry in status.iterations:
        if entry.warning:
            yield f"warning: iteration {entry.t}: {entry.warning}"
    for text, places in _notes(status).items():
        yield f"note: {text} (in {', '.join(places)})"
    if status.log:
        yield f"last lines of its log:\n{status.log}"


def _notes(status: Status) -> dict[str, list[str]]:
    """Notes of tasks of the latest iteration that has some, with the names of their phases."""
    for entry in reversed(status.iterations):
        found: dict[str, list[str]] = {}
        for phase in entry.phases:
            for text in phase.notes if phase.is_array else ():
                found.setdefault(text, []).append(f"{phase.name} of iteration {entry.t}")
        if found:
            return found
    return {}


def _time(status: Status) -> Iterator[str]:
    if status.seconds_left is not None:
        yield f"time left: about {duration(status.seconds_left)}, as measured in this run"
    if status.gpu_seconds:
        idle = "" if status.gpu_idle is None else f", {status.gpu_idle:.0%} idle".replace("%", " %")
        yield f"GPU time: {duration(status.gpu_seconds)} used{idle}"
    if status.tokens.total:
        yield f"tokens: {status.tokens.in_words}"


def compressed(names: Iterable[str]) -> str:
    """Names of nodes as SLURM writes them: node[1-3,7], login."""
    stems: dict[tuple[str, int], list[str]] = {}
    for name in sorted(set(names)):
        stem = name.rstrip("0123456789")
        number = name.removeprefix(stem)
        # node7 and node10 go together, node07 and node7 do not
        padding = len(number) if number.startswith("0") else 0
        stems.setdefault((stem, padding if number else -1), []).append(number)
    return ",".join(
        stem + (numbers[0] if len(numbers) == 1 else f"[{','.join(_ranges(numbers))}]")
        for (stem, _), numbers in stems.items()
    )


def _ranges(numbers: list[str]) -> list[str]:
    """Consecutive numbers as ranges: 1-4, 7."""
    ranges: list[list[str]] = []
    for number in sorted(numbers, key=int):
        if ranges and int(number) == int(ranges[-1][-1]) + 1:
            ranges[-1].append(number)
        else:
            ranges.append([number])
    return [found[0] if len(found) == 1 else f"{found[0]}-{found[-1]}" for found in ranges]


def _headline(status: Status) -> str:
    if status.state == "running" and status.driver is None:
        return HEADLINES["detached"] + (", according to the files" if status.silence else "")
    if status.state == "failed" and status.failure is None:
        return HEADLINES["lost"]
    return HEADLINES[status.state]


def _ending(task: EndedTask, status: Status) -> str:
    """One line for a task; its error is left out where the run's failure message has it."""
    where = f" on {task.node}" if task.node else ""
    job = f" (job {task.job})" if task.job else ""
    why = "" if status.failure is not None and task.why in status.failure.said else f": {task.why}"
    return f"{task.phase} of iteration {task.t}, shard {task.shard}{where}{job}{why}"


def _has_begun(entry: IterationStatus) -> bool:
    return entry.committed or any(
        phase.done or phase.total is not None for phase in entry.phases if phase.is_array
    )


def _show_queue(status: Status, console: Console) -> None:
    """Print SLURM's tasks of the first uncommitted iteration, and which later iterations are queued."""
    unfinished = [entry for entry in status.iterations if not entry.committed]
    if status.state == "done" or not unfinished:
        return
    counted = [(phase, _counts(phase)) for phase in unfinished[0].phases if phase.jobs or phase.queued]
    phases = [phase for phase, counts in counted if any(counts)]
    if phases:
        console.print(_queue(unfinished[0].t, phases))
    later = [entry.t for entry in unfinished[1:] if any(phase.queued for phase in entry.phases)]
    if later:
        console.print(f"queued after it: iteration{'s' * (len(later) > 1)} {_upto(later)}")


def _upto(numbers: list[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def _counts(phase: PhaseStatus) -> tuple[int, int, int, int]:
    return phase.queued, phase.running, phase.requeued, phase.failed


def _queue(t: int, phases: list[PhaseStatus]) -> Table:
    table = Table(title=f"SLURM, iteration {t}", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("phase")
    for heading in ("queued", "running", "requeued", "failed"):
        table.add_column(heading, justify="right")
    table.add_column("nodes")
    table.add_column("why waiting")
    for phase in phases:
        table.add_row(phase.name, *map(str, _counts(phase)), compressed(phase.nodes), phase.waiting)
    return table


def _phases(iterations: list[IterationStatus]) -> Table:
    columns = _columns(iterations)
    names = [phase.name for phase in columns if phase.has_column]
    arrays = [phase.name for phase in columns if phase.is_array]
    table = Table(
        box=box.SIMPLE_HEAD,
        caption=f"tasks, model loads: of {', '.join(arrays)}",
        caption_justify="left",
    )
    table.add_column("iteration")
    counted = any(entry.combats for entry in iterations)
    for name in (*names, *(["pairs"] if counted else []), "tasks", "model loads"):
        table.add_column(name, justify="right")
    for entry in iterations:
        phases = {phase.name: phase for phase in entry.phases}
        assigned = {name: phases[name] for name in arrays if name in phases and phases[name].tasks}
        tasks = ", ".join(str(assigned[name].tasks) if name in assigned else "-" for name in arrays)
        loads = ", ".join(str(assigned[name].loads) if name in assigned else "-" for name in arrays)
        cells = [_cell(phases.get(name)) for name in names]
        if counted:
            cells.append(f"{entry.pairs:,}/{entry.combats:,}" if entry.combats else "-")
        table.add_row(str(entry.t), *cells, tasks, loads)
    return table


def _columns(iterations: list[IterationStatus]) -> list[PhaseStatus]:
    """One phase of each name, in order. An iteration that used an alternative phase has more names than the others."""
    found: dict[str, PhaseStatus] = {}
    names: list[str] = []
    for entry in iterations:
        place = 0
        for phase in entry.phases:
            if phase.name not in found:
                found[phase.name] = phase
                names.insert(place, phase.name)
            place = names.index(phase.name) + 1
    return [found[name] for name in names]


def _cell(phase: PhaseStatus | None) -> str:
    if phase is None:
        return "-"
    if not phase.is_array:
        return "done" if phase.done else "-"
    upto = "up to " * phase.upto
    text = f"{phase.done:,}/{upto}{phase.total:,}" if phase.total is not None else "-"
    if phase.running:
        text += f", {phase.running} running"
    if phase.rate and phase.seconds_left is not None:
        text += f", {phase.rate:.1f}/s, {duration(phase.seconds_left)} left"
    if phase.failed:
        text += f", {phase.failed} failed"
    return text


def _standing(status: Status) -> Table:
    table = Table(
        title=f"standing after iteration {status.standing_after}", title_justify="left", box=box.SIMPLE_HEAD
    )
    table.add_column("model")
    for heading in ("reputation", "deviation", "judging weight"):
        table.add_column(heading, justify="right")
    for name, standing in sorted(status.standing.items(), key=lambda entry: -entry[1].reputation):
        table.add_row(
            name, f"{standing.reputation:.1f}", f"{standing.deviation:.2f}", f"{standing.weight:.1f}"
        )
    return table

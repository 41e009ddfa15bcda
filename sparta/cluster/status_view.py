"""A status for people (tables) and for programs (JSON)."""

from pathlib import Path

import msgspec
from rich import box
from rich.table import Table

from sparta.cluster.console import plain_console
from sparta.cluster.estimate import duration
from sparta.cluster.status import IterationStatus, PhaseStatus, Status

HEADLINES = {
    "done": "done",
    "failed": "failed: the last launch ended with an error",
    "running": "running",
    "stopped": "stopped: nobody is working on it",
}
ARRAYS = ("generate", "judge", "train")


def as_json(status: Status) -> str:
    """One JSON object; fields are those of sparta.cluster.status.Status, with the exit code."""
    fields = {**msgspec.structs.asdict(status), "exit_code": status.exit_code}
    return msgspec.json.format(msgspec.json.encode(fields), indent=2).decode()


def show_status(status: Status, state: Path) -> None:
    """Print `status`."""
    console = plain_console()
    last = max((entry.t for entry in status.iterations if entry.committed), default=0)
    console.print(
        f"run {status.run_id} ({status.recipe}) in {state}: {HEADLINES[status.state]}; {last} of {status.planned} iterations committed",
        markup=False,
    )
    if status.driver:
        console.print(f"driver: {status.driver}", markup=False)
    if status.failure:
        console.print(f"error ({status.failure.when}): {status.failure.said}", markup=False)
    if status.log:
        console.print(f"last lines of its log:\n{status.log}", markup=False)
    if status.seconds_left is not None:
        console.print(f"time left: about {duration(status.seconds_left)}, as measured in this run")
    if status.iterations:
        console.print(_phases(status.iterations))
    console.print(_standing(status))
    if status.state in ("failed", "stopped"):
        where = "" if state == Path("state") else f" --state {state}"
        console.print(f"continue with: python jobs/launch.py{where}", markup=False)


def _phases(iterations: list[IterationStatus]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("iteration")
    for name in (*ARRAYS, "merge", "commit"):
        table.add_column(name, justify="right")
    for entry in iterations:
        phases = {phase.name: phase for phase in entry.phases}
        table.add_row(str(entry.t), *(_cell(phases[name]) for name in (*ARRAYS, "merge", "commit")))
    return table


def _cell(phase: PhaseStatus) -> str:
    if phase.name not in ARRAYS:
        return "done" if phase.done else "-"
    text = f"{phase.done:,}/{phase.total:,}" if phase.total is not None else "-"
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

"""The table of where the time of iterations went, or is expected to go: the same columns for both, so that plan and account can be compared."""

from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from operator import add
from typing import NamedTuple

from rich import box
from rich.table import Table

from sparta.engines.stopwatch import START
from sparta.store.stats import TimeAccount

HOURS_FROM = 2 * 3600.0
"""From so many GPU-seconds or task-seconds on, a table counts hours."""
MOST_ROWS = 8
STAGES = ("waiting", "weights", "compile", "graphs", "other")


class AccountRow(NamedTuple):
    """A row of the table: what it is of, and its account; None where none was measured."""

    what: str
    account: TimeAccount | None


def account_tables(title: str, rows: Sequence[AccountRow]) -> Iterator[Table]:
    """A table for each unit that the accounts of `rows` have; none without an account. Rows without one stand in the first table."""
    units = list(dict.fromkeys(account.unit for _, account in rows if account))
    for number, unit in enumerate(units):
        mine = [row for row in rows if (row.account.unit == unit if row.account else number == 0)]
        yield _table(title, unit, mine)


def with_total(rows: Sequence[AccountRow]) -> list[AccountRow]:
    """The latest of `rows`, and below them the total of all rows with the unit of the last account."""
    accounts = [row.account for row in rows if row.account]
    alike = [account for account in accounts if account.unit == accounts[-1].unit]
    total = [AccountRow(f"all {len(alike)}", reduce(add, alike))] if len(alike) > 1 else []
    return [*rows[-MOST_ROWS:], *total]


def _table(title: str, unit: str, rows: Sequence[AccountRow]) -> Table:
    accounts = [account for _, account in rows if account]
    hours = max(account.whole for account in accounts) >= HOURS_FROM
    columns = list(dict.fromkeys(name for account in accounts for name in _by_column(account)))
    # Alternatives may give a later iteration more parts; starts come first nevertheless, and the small steps last.
    columns.sort(key=lambda name: (name != START, name == "steps"))
    without = " (no task had a GPU)" if unit == "task" else ""
    table = Table(
        title=f"{title}: {unit}-{'hours' if hours else 'seconds'}{without}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        caption=_stages(rows[-1], hours),
        caption_justify="left",
    )
    table.add_column("")
    for heading in (*columns, "idle", "idle share", f"{unit}s"):
        table.add_column(heading, justify="right")
    for what, account in rows:
        table.add_row(what, *(_cells(account, columns, hours) if account else ["-"] * (len(columns) + 3)))
    return table


def _cells(account: TimeAccount, columns: Iterable[str], hours: bool) -> list[str]:
    found = _by_column(account)
    parts = [_amount(found[name], hours) if name in found else "-" for name in columns]
    share = f"{account.idle_share:.0%}".replace("%", " %")
    return [*parts, _amount(account.idle, hours), share, f"{round(account.places, 1):g}"]


def _by_column(account: TimeAccount) -> dict[str, float]:
    """Seconds by part, with the stages of starts added up."""
    found: dict[str, float] = {}
    for part, seconds in account.parts.items():
        name = START if part.startswith(f"{START} ") else part
        found[name] = found.get(name, 0.0) + seconds
    return found


def _stages(row: AccountRow, hours: bool) -> str | None:
    """What the starts of a row consist of; None where no stage is known."""
    parts = row.account.parts if row.account else {}
    stages = {
        part.removeprefix(START).strip() or "other": seconds
        for part, seconds in parts.items()
        if part == START or part.startswith(f"{START} ")
    }
    if not stages.keys() - {"other"}:
        return None
    # On a CPU, vLLM goes through stages in which it has nothing to do.
    shown = {name: stages[name] for name in STAGES if stages.get(name, 0.0) > sum(stages.values()) / 1000}
    return f"{START} of {row.what}: {', '.join(f'{name} {_amount(seconds, hours)}' for name, seconds in shown.items())}"


def _amount(seconds: float, hours: bool) -> str:
    if hours:
        return f"{seconds / 3600:.2f}"
    return f"{seconds:.1f}" if seconds < 100 else f"{seconds:,.0f}"

"""What people see never steers their terminal nor turns letters around, whoever wrote it."""

import io
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from support.scripted_run import advance, begin, typed

from sparta.chat.template import Message
from sparta.commands.prepare_data import show
from sparta.errors import SpartaError, printable
from sparta.phases import judge
from sparta.screen import PlainConsole, Screen
from sparta.store.failure import note_failure
from sparta.tasks import prepared
from sparta.tasks.base import Item
from sparta.tasks.benchmarks.gsm8k import GSM8K

STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202edetrevni\u2066 [bold]\r[/] :warning:"


@given(st.text(st.characters()))
def test_a_text_loses_what_steers_and_nothing_else(text: str) -> None:
    shown = printable(text)
    assert not STEERING.search(shown)
    assert printable(shown) == shown
    if not STEERING.search(text):
        assert shown == text


def test_what_steers_is_spelled_out_and_can_be_read() -> None:
    assert printable("a\x1b[31mb\x9bc\u202ed\ud800\x7f") == r"a\x1b[31mb\x9bc\u202ed\ud800\x7f"
    assert printable("two\r\nlines\tand a\rreturn\r\r\n") == "two\nlines\tand a\\x0dreturn\n"
    for kept in ("naïve 日本語 \U0001f469\u200d\U0001f52c", "نمی\u200cخواهم", "x\u00ady\n\t"):
        assert printable(kept) == kept


def test_an_error_is_printable_whatever_it_quotes() -> None:
    error = SpartaError(f"the endpoint answered {HOSTILE}")
    assert not STEERING.search(str(error)) and str(error).startswith(
        r"the endpoint answered \x1b]0;owned\x07"
    )


@pytest.mark.parametrize("terminal", [False, True])
def test_a_console_shows_texts_as_they_are(terminal: bool) -> None:
    file = io.StringIO()
    console = PlainConsole(file=file, width=200, force_terminal=terminal, color_system=None)
    table = Table(HOSTILE, title=HOSTILE)
    table.add_row(HOSTILE)
    console.print(table)
    Screen(console).say(HOSTILE)
    shown = file.getvalue()
    assert not STEERING.search(shown)
    assert shown.count(r"\x1b[2J\x9b31m\u202edetrevni\u2066 [bold]") == 4
    assert shown.count(":warning:") == 4
    widths = {len(line) for line in shown.splitlines()[1:-1] if line.strip()}
    assert len(widths) == 1, "a table is measured as it is shown"


def test_a_status_shows_what_logs_and_errors_say(tmp_path: Path) -> None:
    run = begin(tmp_path)
    note_failure(run.state, HOSTILE)
    table, fields = typed("status", run.state.root), typed("status", run.state.root, "--json")
    for told in (table, fields):
        assert not STEERING.search(told.stdout + told.stderr)
    assert r"\x1b[2J\x9b31m\u202edetrevni" in table.stdout
    assert json.loads(fields.stdout)["failure"]["said"] == HOSTILE


def test_items_are_shown_as_they_are(tmp_path: Path) -> None:
    file = io.StringIO()
    item = Item("1", (Message("user", HOSTILE),), answer="1", reference=HOSTILE)
    source = prepared.Provenance("gsm8k", "local", "", {}, {}, (), {})
    prepared.write(tmp_path, GSM8K, {"train": [item]}, source)
    show(["gsm8k"], 1, tmp_path, Screen(PlainConsole(file=file, width=200)))
    assert not STEERING.search(file.getvalue())
    assert file.getvalue().count(r"\u202edetrevni\u2066 [bold]") == 2


def test_what_a_judge_wrote_is_quoted_in_letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparta.engines.scripted._UNREADABLE", HOSTILE)
    run = begin(tmp_path, engine={"kind": "scripted", "scripted": {"unreadable": {"model0": 1.0}}})
    with pytest.raises(SpartaError, match="it wrote, for example") as caught:
        advance(run, 1)
    assert not STEERING.search(str(caught.value)) and r"\u202edetrevni" in str(caught.value)
    assert judge.Judge().missing(run, 1) == []

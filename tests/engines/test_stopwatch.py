"""What a task spends its time on: one part at a time, and nothing is lost between two of them."""

from collections.abc import Mapping

import pytest

from sparta.engines import stopwatch
from sparta.engines.stopwatch import START, TRAIN, WEIGHTS, doing, timing


class Clock:
    """Time that only passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(stopwatch, "time", made)
    return made


Notes = list[tuple[dict[str, float], str]]


def noting(notes: Notes) -> stopwatch.Noted:
    def noted(parts: Mapping[str, float], part: str) -> None:
        notes.append((dict(parts), part))

    return noted


def test_a_part_ends_when_another_begins_and_goes_on_after_it(clock: Clock) -> None:
    notes: Notes = []
    with timing("judge", noting(notes)):
        clock.now += 3
        with doing(WEIGHTS):
            clock.now += 10
            with doing(TRAIN):
                clock.now += 5
            clock.now += 1
        clock.now += 2
        with doing(WEIGHTS):
            clock.now += 4
    assert [part for _, part in notes] == [WEIGHTS, TRAIN, WEIGHTS, "judge", WEIGHTS, "judge"]
    assert notes[0] == ({"judge": 3}, WEIGHTS)
    assert notes[-1] == ({"judge": 5, WEIGHTS: 15, TRAIN: 5}, "judge")
    assert sum(notes[-1][0].values()) == clock.now - 1000


def test_stages_of_a_part_count_instead_of_it_and_never_for_more_than_it_took(clock: Clock) -> None:
    notes: Notes = []
    with timing("judge", noting(notes)):
        with doing(START) as stages:
            clock.now += 60
            stages |= {WEIGHTS: 10.0, "start compile": 20.0}
        with doing(START) as stages:
            clock.now += 9
            stages |= {WEIGHTS: 6.0, "start compile": 12.0}
    parts, _ = notes[-1]
    assert parts == {START: 30, WEIGHTS: 10 + 3, "start compile": 20 + 6}


def test_a_part_that_fails_is_counted(clock: Clock) -> None:
    notes: Notes = []
    with pytest.raises(ZeroDivisionError), timing("judge", noting(notes)), doing(START):
        clock.now += 7
        raise ZeroDivisionError
    assert notes[-1] == ({START: 7}, "judge")


def test_a_clock_that_is_set_back_takes_nothing_away(clock: Clock) -> None:
    notes: Notes = []
    with timing("judge", noting(notes)):
        clock.now += 5
        with doing(START):
            clock.now -= 100
    assert notes[-1] == ({"judge": 5}, "judge")


def test_without_a_task_nobody_listens_and_a_task_inside_another_has_its_own_time(clock: Clock) -> None:
    outer: Notes = []
    inner: Notes = []
    with doing(START) as stages:
        stages[WEIGHTS] = 1.0
    with timing("judge", noting(outer)):
        with timing("train set-up", noting(inner)), doing(TRAIN):
            clock.now += 2
        with doing(START):
            clock.now += 1
    assert inner[-1] == ({TRAIN: 2}, "train set-up")
    assert outer[-1] == ({"judge": 2, START: 1}, "judge")

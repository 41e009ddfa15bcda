"""A chain of jobs: its links, which of them assign keys, and whether it is intact."""

from pathlib import Path

import pytest
from support.scripted_run import advance, begin

from sparta.cluster.attempts import Piece
from sparta.cluster.slurm.cli import QueueEntry
from sparta.cluster.slurm.detached import Chain, Link, is_intact, latest_chain, links_from, orphans
from sparta.phases.generate import Generate
from sparta.store import files
from sparta.store.run import Run


def links(run: Run, first: int, last: int, tasks: int = 16) -> list[Link]:
    return links_from(run, first, last, lambda phase: tasks)


def test_steps_between_two_arrays_are_one_job_and_the_plan_assigns_the_keys_it_makes_known(
    tmp_path: Path,
) -> None:
    run = begin(tmp_path)
    advance(run, 1, upto="plan")
    found = links(run, 1, 2)
    assert [str(link) for link in found] == [
        "generate 1",
        "judge 1",
        "merge 1",
        "train 1",
        "commit 1 and plan 2",
        "generate 2",
        "judge 2",
        "merge 2",
        "train 2",
        "commit 2",
    ]
    assigns = {str(link): link.work.assigns for link in found if link.work.assigns}
    assert assigns == {"commit 1 and plan 2": ((Piece("generate", 2, 0), 16), (Piece("judge", 2, 0), 16))}
    assert all(link.work.detached and link.work.state == str(run.state.root.resolve()) for link in found)


def test_arrays_are_as_wide_as_their_items_where_those_are_known_and_as_allowed_elsewhere(
    tmp_path: Path,
) -> None:
    run = begin(tmp_path, models=4, combats=3)
    advance(run, 1, upto="plan")
    widths = {str(link): link.shards for link in links(run, 1, 2, tasks=10)}
    assert widths == {
        "generate 1": 6,
        "judge 1": 6,
        "merge 1": 1,
        "train 1": 4,
        "commit 1 and plan 2": 1,
        "generate 2": 10,
        "judge 2": 10,
        "merge 2": 1,
        "train 2": 4,
        "commit 2": 1,
    }


def test_an_iteration_without_a_plan_begins_with_one(tmp_path: Path) -> None:
    run = begin(tmp_path)
    first, second, *_ = links(run, 1, 1)
    assert str(first) == "plan 1"
    assert first.work.assigns == ((Piece("generate", 1, 0), 16), (Piece("judge", 1, 0), 16))
    assert (str(second), second.shards) == ("generate 1", 16)


def test_finished_work_is_left_out_and_earlier_attempts_get_a_new_number(tmp_path: Path) -> None:
    run = begin(tmp_path)
    advance(run, 1, upto="merge")
    assert [str(link) for link in links(run, 1, 1)] == ["train 1", "commit 1"]
    [path] = run.iteration(1).responses.iterdir()
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-3]))
    [generate, *_] = links(run, 1, 1)
    assert generate.work.pieces == (Piece("generate", 1, 1),)
    assert generate.shards == len(Generate().missing(run, 1)) == 3


def test_looking_writes_nothing(tmp_path: Path) -> None:
    run = begin(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    links(run, 1, 3)
    assert sorted(tmp_path.rglob("*")) == before


# --- whether it goes on

CHAIN = Chain(
    [("generate 1", ["10"]), ("judge 1", ["11", "12"]), ("merge 1", ["13"])],
    ["generate", "judge.0", "judge.1", "merge"],
    whole=True,
    last=1,
    submitted=0.0,
)


def task(job: str, state: str = "PENDING", reason: str = "Dependency") -> QueueEntry:
    return QueueEntry("a name", job, 0, state, reason, "", "")


WAITING = [task("11_0"), task("12_0"), task("13")]


@pytest.mark.parametrize(
    ("tasks", "so"),
    [
        ([task("10_0", "RUNNING"), task("10_1", reason="JobArrayTaskLimit"), *WAITING], True),
        ([task("10_0", "COMPLETED"), task("10_1", "COMPLETING"), *WAITING], True),
        ([task("10_0", reason="JobHeldUser"), *WAITING], True),
        # The first jobs have been forgotten, the last one waits.
        ([task("13")], True),
        # A task has failed; what depends on it is still queued, for a moment.
        ([task("10_0", "FAILED"), task("10_1", "RUNNING"), *WAITING], False),
        ([task("10_0", "CANCELLED"), *WAITING], False),
        ([task("10_0", "RUNNING")], False),
        ([task("13", "COMPLETING")], False),
        ([task("13", "COMPLETED")], False),
        ([], False),
        # Jobs that are not the chain's say nothing about it.
        ([task("20", "FAILED"), task("13")], True),
        ([task("20", "RUNNING")], False),
    ],
)
def test_a_chain_is_intact_while_its_last_job_is_queued_and_no_job_has_failed(
    tasks: list[QueueEntry], so: bool
) -> None:
    assert is_intact(CHAIN, tasks) is so


def test_the_latest_chain_is_read_as_it_was_written(tmp_path: Path) -> None:
    run = begin(tmp_path)
    assert latest_chain(run) is None
    files.write_json(run.state.jobs / "chain.json", CHAIN)
    assert latest_chain(run) == CHAIN


def test_orphans_are_held_jobs_that_no_file_names() -> None:
    tasks = [
        task("10_0", reason="JobHeldUser"),
        task("10_1", reason="JobHeldUser"),
        task("11", reason="JobHeldUser"),
        # Noted, and held by its owner's will.
        task("12_0", reason="JobHeldUser"),
        task("13"),
        task("14", reason="JobHeldAdmin"),
        task("15", "RUNNING"),
        task("16", "CANCELLED", "JobHeldUser"),
    ]
    assert orphans(tasks, {"12"}) == ["10", "11"]


def test_each_phase_has_as_many_shards_as_the_launcher_gives_it(tmp_path: Path) -> None:
    """A task of a training may take several GPUs of a node, so fewer of them run at once."""
    found = links_from(begin(tmp_path), 1, 2, lambda phase: 4 if phase.trains else 16)
    assert {str(link): link.shards for link in found}["train 2"] == 4
    assigned = dict(pair for link in found for pair in link.work.assigns)
    assert {piece.phase: tasks for piece, tasks in assigned.items()} == {"generate": 16, "judge": 16}

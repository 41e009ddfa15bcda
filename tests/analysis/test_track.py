"""Trackers get what a run knows, each number once, whatever happens between two sendings. They are the real libraries, where installed."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from support.openings import go_back
from support.scripted_run import advance, begin

from analysis.frames import load_all
from analysis.track import main, send
from analysis.tracked import Sent, Values, read_sent, sent_file, tracked_values
from sparta.errors import SpartaError
from sparta.store import files, standings
from sparta.store.run import Run
from sparta.store.stats import IterationStats, TimeAccount


def played(folder: Path, iterations: int = 2, **changes: object) -> Run:
    run = begin(folder, **changes)
    for t in range(1, iterations + 1):
        advance(run, t)
    return run


def in_tensorboard(run: Run, name: str) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of the run `name`: steps and numbers by tag, as often as they were sent."""
    pytest.importorskip("tensorboard", reason="tensorboard is not installed (requirements/dev.txt)")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    shown: dict[str, list[tuple[int, float]]] = {}
    for path in sorted((run.state.root / "tracked" / "tensorboard" / name).iterdir()):
        events = EventAccumulator(str(path))
        events.Reload()
        for tag in events.Tags()["tensors"]:
            shown.setdefault(tag, []).extend(
                (event.step, float(make_ndarray(event.tensor_proto))) for event in events.Tensors(tag)
            )
    return shown


def test_the_numbers_are_those_of_the_state(tmp_path: Path) -> None:
    run = played(tmp_path)
    values = tracked_values(load_all([run.state.root]))
    assert list(values) == [0, 1, 2]
    for t in (1, 2):
        stats = files.read_json(run.iteration(t).stats, IterationStats)
        for name, standing in standings.at_end(run, t).items():
            assert values[t][f"reputation/{name}"] == standing.reputation
            assert values[t][f"deviation/{name}"] == standing.deviation
        assert values[t]["combats/pair"] == stats.pairs
        losses = {
            name.removeprefix("loss/"): each for name, each in values[t].items() if name.startswith("loss/")
        }
        assert losses == stats.mean_losses
        assert values[t]["combats/share of pairs"] == pytest.approx(stats.pairs / 12)
        assert values[t]["tokens/generated"] == stats.tokens.generated


def test_a_cost_that_was_not_measured_yet_is_sent_later_and_alone(tmp_path: Path) -> None:
    run = played(tmp_path, iterations=1)
    path = run.iteration(1).stats
    stats = files.read_json(path, IterationStats)
    assert stats.account is None
    sent, first = Sent().missing(tracked_values(load_all([run.state.root])))
    assert not [name for name in first[1] if name.startswith("cost/")]
    account = TimeAccount("GPU", 2, 3600, {"train": 5400.0}, 1800)
    files.write_json(path, replace(stats, account=account, gpu_seconds=5400.0, gpu_idle=0.25))
    later, new = delivered(sent, first).missing(tracked_values(load_all([run.state.root])))
    assert new == {1: {"cost/GPU hours": 1.5, "cost/idle share of GPUs": 0.25}} and later.number == 1


def test_an_iteration_under_way_is_not_sent(tmp_path: Path) -> None:
    run = played(tmp_path, iterations=1)
    advance(run, 2, upto="merge")
    assert list(tracked_values(load_all([run.state.root]))) == [0, 1]


def test_a_method_without_combats_has_no_reputations(tmp_path: Path) -> None:
    run = played(tmp_path, iterations=1, models=3, method="self_rewarding", baseline={"start": "model1"})
    names = {
        name.partition("/")[0] for row in tracked_values(load_all([run.state.root])).values() for name in row
    }
    assert "prompts" in names and "reputation" not in names


def test_tensorboard_gets_each_number_once(tmp_path: Path) -> None:
    run = played(tmp_path, iterations=1)
    assert "sent" in send(run.state.root, "tensorboard", "p")
    assert send(run.state.root, "tensorboard", "p") == "tensorboard has everything already"
    advance(run, 2)
    assert "of 1 iterations" in send(run.state.root, "tensorboard", "p")
    shown = in_tensorboard(run, "rehearsal-seed0")
    values = tracked_values(load_all([run.state.root]))
    assert shown == {
        name: [(t, pytest.approx(row[name], rel=1e-6)) for t, row in values.items() if name in row]
        for name in {name for row in values.values() for name in row}
    }


def test_a_run_that_went_back_is_sent_again_under_another_name(tmp_path: Path) -> None:
    run = played(tmp_path, iterations=2)
    send(run.state.root, "tensorboard", "p")
    again = go_back(run.state, 1)
    assert "as rehearsal-seed0-2" in send(run.state.root, "tensorboard", "p")
    assert max(step for step, _ in in_tensorboard(again, "rehearsal-seed0-2")["combats/pair"]) == 1
    assert send(run.state.root, "tensorboard", "p") == "tensorboard has everything already"
    advance(again, 2)
    send(run.state.root, "tensorboard", "p")
    assert [step for step, _ in in_tensorboard(again, "rehearsal-seed0-2")["combats/pair"]] == [1, 2]


def delivered(sent: Sent, values: Values) -> Sent:
    """What the tracker has after all `values` were handed over."""
    for t, row in values.items():
        sent = sent.having(t, row)
    return sent


def test_scores_that_come_later_are_sent_alone() -> None:
    sent, first = Sent().missing({1: {"a": 1.0}, 2: {"a": 2.0}})
    assert first == {1: {"a": 1.0}, 2: {"a": 2.0}}
    sent = delivered(sent, first)
    later, new = sent.missing({1: {"a": 1.0, "score": 0.5}, 2: {"a": 2.0}})
    assert new == {1: {"score": 0.5}} and later.number == 1
    assert delivered(later, new).missing({1: {"a": 1.0, "score": 0.6}, 2: {"a": 2.0}})[0].number == 2


def test_what_a_tracker_refuses_counts_as_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from analysis import trackers

    class Refusing(trackers.TensorBoard):
        def send(self, *_: Any) -> str:
            raise ConnectionError("no network")

    run = played(tmp_path, iterations=1)
    monkeypatch.setitem(trackers.TRACKERS, "tensorboard", Refusing)
    with pytest.raises(
        SpartaError, match="did not take the numbers .ConnectionError: no network.: see to that"
    ):
        send(run.state.root, "tensorboard", "p")
    assert read_sent(run.state, "tensorboard") == Sent()


@pytest.mark.parametrize("again", [False, True])
def test_what_was_delivered_before_a_failure_is_not_sent_again(
    again: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed (requirements/dev.txt)")
    from analysis import trackers

    class Breaking(trackers.TensorBoard):
        def send(self, numbers: trackers.Numbers) -> str:
            some = {t: row for t, row in numbers.values.items() if t in (0, 1)}
            super().send(dataclasses.replace(numbers, values=some))
            raise ConnectionError("no network any more")

    run = played(tmp_path, iterations=2)
    name = "rehearsal-seed0"
    if again:
        # Something that was sent has changed since, so that everything is sent under another name.
        files.write_json(sent_file(run.state, "tensorboard"), Sent(1, {"1": {"combats/pair": -1.0}}))
        name += "-2"
    whole = trackers.TRACKERS["tensorboard"]
    monkeypatch.setitem(trackers.TRACKERS, "tensorboard", Breaking)
    with pytest.raises(SpartaError, match="no network any more"):
        send(run.state.root, "tensorboard", "p")
    monkeypatch.setitem(trackers.TRACKERS, "tensorboard", whole)
    assert f"of 1 iterations to tensorboard as {name}:" in send(run.state.root, "tensorboard", "p")
    assert send(run.state.root, "tensorboard", "p") == "tensorboard has everything already"
    assert [step for step, _ in in_tensorboard(run, name)["combats/pair"]] == [1, 2]


@pytest.mark.parametrize(
    ("to", "package"), [("trackio", "trackio"), ("wandb", "wandb"), ("tensorboard", "tensorboard")]
)
def test_a_tracker_that_is_not_installed_says_how_to_install_it(
    to: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = played(tmp_path, iterations=1)
    for module in ("trackio", "wandb", "tensorboard.summary"):
        monkeypatch.setitem(sys.modules, module, None)
    assert main([str(run.state.root), "--to", to]) == 1
    assert (
        f"{package} is not installed" in (said := capsys.readouterr().err)
        and f"pip install {package}" in said
    )
    assert not sent_file(run.state, to).exists()


def test_a_damaged_note_is_named_with_its_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = played(tmp_path, iterations=1)
    path = sent_file(run.state, "wandb")
    path.parent.mkdir()
    path.write_text("{")
    assert main([str(run.state.root), "--to", "wandb"]) == 1
    said = capsys.readouterr().err
    assert str(path) in said and "everything is sent again" in said


def test_wandb_offline_resumes_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed (requirements/track.txt)")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = played(tmp_path, iterations=1)
    assert "wandb sync" in send(run.state.root, "wandb", "p")
    assert send(run.state.root, "wandb", "p") == "wandb has everything already"
    advance(run, 2)
    send(run.state.root, "wandb", "p")
    made = list((run.state.root / "tracked" / "wandb").glob("offline-run-*"))
    assert made and all(path.name.endswith(run.info.run_id) for path in made)


def test_trackio_gets_each_number_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    trackio = pytest.importorskip("trackio", reason="trackio is not installed (requirements/track.txt)")
    run = played(tmp_path, iterations=1)
    send(run.state.root, "trackio", "p")
    assert send(run.state.root, "trackio", "p") == "trackio has everything already"
    advance(run, 2)
    send(run.state.root, "trackio", "p")
    [known] = trackio.Api().runs("p")
    assert known.name == f"rehearsal-seed0-{run.info.run_id}"

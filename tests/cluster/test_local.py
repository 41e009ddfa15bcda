"""The local cluster's GPUs and logs."""

import stat
from pathlib import Path

import pytest
from support.scripted_run import advance, begin, typed, wait_until, write_recipe

from sparta.cluster.attempts import AttemptDir
from sparta.cluster.gpus import visible_gpus
from sparta.cluster.inline import Inline
from sparta.cluster.local import Local
from sparta.cluster.sharding import shard_items
from sparta.errors import SpartaError
from sparta.evaluation.grade import GradeAnswers
from sparta.methods.registry import phases_of
from sparta.phases.generate import Generate
from sparta.phases.train import Train
from sparta.recipes.load import adjust
from sparta.store.run import Run


@pytest.mark.parametrize(
    ("named", "gpus"),
    [
        ("0,1", ("0", "1")),
        ("GPU-8a2b, MIG-77c1", ("GPU-8a2b", "MIG-77c1")),
        ("", ()),
        ("-1", ()),
    ],
)
def test_gpus_keep_the_names_of_the_environment(
    named: str, gpus: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert visible_gpus() == gpus


def on_two_gpus(folder: Path) -> Run:
    """A run whose base needs two GPUs for its driver; its tasks, which read the recipe from disk, need none."""
    run = begin(folder, combats=8)
    run.recipe = adjust(run.recipe, ["engine.kind=vllm", "engine.vllm.tensor_parallel=2"])
    return run


def test_a_base_on_two_gpus_has_half_as_many_tasks_at_once_each_with_its_own_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    run = on_two_gpus(tmp_path)
    advance(run, 1, upto="plan")
    launcher, attempts = Local(run), AttemptDir(run, Generate(), 1)
    launcher.check(phases_of(run.recipe, 1))
    assert (launcher.at_once(Generate()), launcher.tasks(Generate())) == (2, 2)
    attempt = attempts.assign(shard_items(Generate().missing(run, 1), 4), launcher.name)
    launcher.start(attempts, attempt, lambda _: None)
    most = 0

    def ended() -> bool:
        nonlocal most
        most = max(most, sum(record.alive for record in attempts.records(attempt)))
        return not launcher.running(attempts, attempt)

    wait_until(ended)
    records = attempts.records(attempt)
    assert [record.outcome for record in records] == ["done"] * 4 and most <= 2
    # Whichever ended first, the next one got its GPUs.
    assert {record.gpus for record in records[:2]} == {record.gpus for record in records} == {"0,1", "2,3"}


@pytest.mark.parametrize(("gpus", "tasks"), [("0,1,2", 1), ("GPU-8a2b,MIG-77c1", 1), ("4,5,6,7,8,9", 3)])
def test_gpus_that_are_left_over_are_not_given_to_a_base_that_needs_more(
    gpus: str, tasks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    assert Local(on_two_gpus(tmp_path)).at_once(Generate()) == tasks


def test_a_machine_with_fewer_gpus_than_a_base_needs_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    run = on_two_gpus(tmp_path)
    with pytest.raises(SpartaError, match="tensor_parallel is 2, and this machine has 1 GPU: lower it"):
        Local(run).check(phases_of(run.recipe, 1))


@pytest.mark.parametrize("launcher", [Local, Inline])
def test_a_training_on_more_gpus_than_the_machine_has_is_refused_by_its_key(
    launcher: type[Local] | type[Inline], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    run = begin(tmp_path)
    run.recipe = adjust(run.recipe, ["cluster.gpus_per_training=2"])
    launcher(run).check([Generate()])
    with pytest.raises(
        SpartaError, match=r"^cluster\.gpus_per_training is 2, and this machine has 1 GPU: lower it"
    ):
        launcher(run).check(phases_of(run.recipe, 1))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    launcher(run).check(phases_of(run.recipe, 1))


def test_a_training_on_two_gpus_gets_these_and_generation_as_many_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    run = begin(tmp_path)
    run.recipe = adjust(run.recipe, ["cluster.gpus_per_training=2"])
    launcher = Local(run)
    assert (launcher.at_once(Train()), launcher.at_once(Generate())) == (2, 4)
    assert launcher._gpus(Train()) == ["0,1", "2,3"]


def graded_by(run: Run, *settings: str) -> Run:
    """The run with a judge of evaluations whose engine is as the settings say."""
    judge = ["evaluation.judge.base=umpire", *(f"evaluation.judge.engine.{setting}" for setting in settings)]
    run.recipe = adjust(run.recipe, judge)
    return run


GRADING = GradeAnswers("test", {"essay": ("iter_01-model0",)})


def test_tasks_are_sized_by_the_engine_of_their_phase(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    monkeypatch.setattr("os.cpu_count", lambda: 12)
    run = graded_by(on_two_gpus(tmp_path), "kind=vllm", "vllm.tensor_parallel=4")
    launcher = Local(run)
    assert (launcher.at_once(Generate()), launcher.at_once(GRADING), launcher.tasks(GRADING)) == (2, 1, 1)
    graded_by(run, "kind=api", "api.url=http://127.0.0.1:9/v1")
    assert (launcher.at_once(Generate()), launcher.at_once(GRADING)) == (2, 6), "an endpoint takes no GPU"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    graded_by(run, "kind=vllm", "vllm.tensor_parallel=4")
    launcher.check([Generate()])
    with pytest.raises(
        SpartaError, match=r"^evaluation\.judge\.engine\.vllm\.tensor_parallel is 4, and this machine has 2"
    ):
        launcher.check([GRADING])


def test_a_pool_at_an_endpoint_is_asked_without_gpus_and_trained_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr("os.cpu_count", lambda: 12)
    run = begin(tmp_path)
    run.recipe = adjust(run.recipe, ["engine.kind=api", "engine.api.url=http://127.0.0.1:9/v1"])
    assert [Local(run).at_once(phase) for phase in (Generate(), Train())] == [6, 2]


def test_pickles_of_a_run_are_private(tmp_path: Path) -> None:
    done = typed(
        "launch",
        "--recipe",
        write_recipe(tmp_path),
        "--state",
        tmp_path / "state",
        "--iters",
        1,
        "--cluster",
        "local",
    )
    assert done.returncode == 0, done.stderr
    pickles = list((tmp_path / "state" / "jobs").rglob("*.pkl"))
    assert pickles
    assert {stat.S_IMODE(path.parent.stat().st_mode) for path in pickles} == {0o700}

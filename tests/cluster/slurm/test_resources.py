"""The resources that tasks request follow from the engine of their phase: the pool's, the judge's, or an endpoint, which needs no GPU here."""

from pathlib import Path

import pytest
import yaml
from support.scripted_run import begin

from sparta.cluster.attempts import Piece
from sparta.cluster.slurm import cli
from sparta.cluster.slurm.launcher import Slurm
from sparta.cluster.slurm.profile import Resources
from sparta.cluster.slurm.submit import script
from sparta.cluster.slurm.worker import ShardJob
from sparta.errors import SpartaError
from sparta.evaluation.grade import GradeAnswers
from sparta.phases.generate import Generate
from sparta.phases.train import Train
from sparta.recipes.load import adjust
from sparta.store.run import Run

GRADING = GradeAnswers("test", {"essay": ("iter_01-model0",)})
PROFILE = {
    "name": "small",
    "nodes": 2,
    "gpus_per_node": 4,
    "gpu": {"partition": "gpu", "memory": "64G"},
    "cpu": {"partition": "cpu", "memory": "4G"},
}


def on_slurm(folder: Path, *settings: str, **profile: object) -> Slurm:
    path = folder / "profile.yaml"
    path.write_text(yaml.safe_dump({**PROFILE, **profile}))
    run = begin(folder, evaluation={"judge": {"base": "umpire", "engine": {"kind": "vllm"}}})
    run.recipe = adjust(run.recipe, [f"cluster.profile={path}", *settings])
    return Slurm(run)


def asked(launcher: Slurm, run: Run, phase: str) -> Resources:
    piece = Piece(phase, 1, 0, GRADING.spec if phase == GRADING.name else None)
    [array] = launcher.arrays(ShardJob(run.state.root, (piece,)), 4)
    return array.resources


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "installed", lambda: False)
    monkeypatch.setattr(cli, "partitions", lambda clusters: {"gpu": 1e6, "cpu": 1e6, "net": 1e6})


@pytest.mark.parametrize(
    ("whose", "on_cpus"),
    [("evaluation.judge.engine", {GRADING.name}), ("engine", {"generate", "judge", "combat"})],
)
def test_an_array_that_calls_an_endpoint_requests_the_resources_of_a_step(
    whose: str, on_cpus: set[str], tmp_path: Path
) -> None:
    launcher = on_slurm(tmp_path, f"{whose}.kind=api", f"{whose}.api.url=http://127.0.0.1:9/v1")
    run = launcher._run
    for phase in ("generate", "judge", "combat", "train", GRADING.name):
        found = asked(launcher, run, phase)
        expected = ("cpu", "4G", 0) if phase in on_cpus else ("gpu", "64G", 1)
        assert (found.partition, found.memory, found.gpus) == expected, phase


def test_the_profile_decides_where_an_endpoint_is_called(tmp_path: Path) -> None:
    endpoint = ("evaluation.judge.engine.kind=api", "evaluation.judge.engine.api.url=http://127.0.0.1:9/v1")
    launcher = on_slurm(tmp_path, *endpoint, phases={"grade": {"partition": "net", "time": 600}})
    found = asked(launcher, launcher._run, GRADING.name)
    assert (found.partition, found.minutes, found.memory, found.gpus) == ("net", 600, "4G", 0)
    launcher.check([GRADING])


def test_a_judge_on_more_gpus_than_its_tasks_have_is_refused_by_its_own_key(tmp_path: Path) -> None:
    two = "evaluation.judge.engine.vllm.tensor_parallel=2"
    launcher = on_slurm(tmp_path, two, phases={"grade": {"gpus": 1}})
    launcher.check([Generate()])
    with pytest.raises(
        SpartaError,
        match=r"^evaluation\.judge\.engine\.vllm\.tensor_parallel is 2, .* a task of grade 1 GPU: set phases\.grade\.gpus there",
    ):
        launcher.check([GRADING])
    for profile in ({}, {"phases": {"grade": {"gpus": 2}}}):
        launcher = on_slurm(tmp_path, two, **profile)
        launcher.check([GRADING])
        assert asked(launcher, launcher._run, GRADING.name).gpus == 2


def test_a_training_asks_for_the_gpus_that_its_base_is_divided_over(tmp_path: Path) -> None:
    launcher = on_slurm(tmp_path, "cluster.gpus_per_training=3")
    run = launcher._run
    launcher.check([Generate(), Train()])
    assert (asked(launcher, run, "train").gpus, asked(launcher, run, "generate").gpus) == (3, 1)
    # A node of four has room for one such task.
    assert (launcher.at_once(Train()), launcher.tasks(Train()), launcher.at_once(Generate())) == (2, 2, 8)
    [array] = launcher.arrays(ShardJob(run.state.root, (Piece("train", 1, 0),)), 4)
    assert "%2" in script(array, launcher.profile)


def test_a_training_on_more_gpus_than_a_node_has_is_refused_by_its_key(tmp_path: Path) -> None:
    with pytest.raises(
        SpartaError,
        match=r"^cluster\.gpus_per_training is 2, and a node of profile small has 1 GPU: lower it, or correct gpus_per_node there",
    ):
        on_slurm(tmp_path, "cluster.gpus_per_training=2", gpus_per_node=1).check([Train()])
    with pytest.raises(SpartaError, match=r"a task of train 1 GPU: set phases\.train\.gpus there"):
        on_slurm(tmp_path, "cluster.gpus_per_training=2", phases={"train": {"gpus": 1}}).check([Train()])

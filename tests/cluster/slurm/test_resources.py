"""The resources that tasks request follow from the engine of their phase: the pool's, the judge's, or an endpoint, which needs no GPU here."""

from pathlib import Path

import pytest
import yaml
from support.scripted_run import begin

from sparta.cluster.attempts import Piece
from sparta.cluster.slurm import cli
from sparta.cluster.slurm.launcher import Slurm
from sparta.cluster.slurm.profile import Resources
from sparta.cluster.slurm.worker import ShardJob
from sparta.errors import SpartaError
from sparta.evaluation.grade import GradeAnswers
from sparta.phases.generate import Generate
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
    launcher = on_slurm(tmp_path, "evaluation.judge.engine.vllm.tensor_parallel=2")
    launcher.check([Generate()])
    with pytest.raises(
        SpartaError,
        match=r"^evaluation\.judge\.engine\.vllm\.tensor_parallel is 2, .* a task of grade 1 GPU: set phases\.grade\.gpus there",
    ):
        launcher.check([GRADING])
    launcher = on_slurm(
        tmp_path, "evaluation.judge.engine.vllm.tensor_parallel=2", phases={"grade": {"gpus": 2}}
    )
    launcher.check([GRADING])

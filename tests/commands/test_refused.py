"""A launch that is refused leaves nothing behind, and its dry run is refused in the same words."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.expert_recipes import write_school
from support.openings import begin_or_continue
from support.scripted_run import advance, begin, write_recipe

from sparta.cluster.attempts import AttemptDir, new_record
from sparta.commands.launch import launch
from sparta.commands.launch_request import LaunchRequest
from sparta.errors import SpartaError
from sparta.phases.plan import Plan
from sparta.recipes.load import load
from sparta.screen import Screen
from sparta.store import files
from sparta.store.layout import StateDir
from sparta.store.lock import RunLock
from sparta.store.run import Run

Place = Path
"""A folder with a recipe (recipe.yaml) and, where a run is there already, its state of two iterations (parent)."""


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """What is below a folder: when each was modified, and its size. Empty where there is no folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        found[str(path.relative_to(folder))] = (status.st_mtime_ns, status.st_size if path.is_file() else 0)
    return found


def refused(asked: LaunchRequest, place: Place) -> str:
    """The error of a refused launch. The folder must stay unchanged, and the dry run must end with the same error."""
    before = tree(place)
    said = []
    for dry_run in (True, False):
        with pytest.raises(SpartaError) as caught:
            launch(replace(asked, dry_run=dry_run), Screen())
        said.append(str(caught.value))
        assert tree(place) == before, f"dry run: {dry_run}"
    assert said[0] == said[1]
    return said[0]


@dataclass(frozen=True)
class Case:
    """Something that a person can get wrong. wrong: done to the place before. recipe: what recipe.yaml has otherwise."""

    name: str
    says: str
    settings: tuple[str, ...] = ()
    asked: Callable[[Place], dict[str, Any]] = lambda place: {}
    wrong: Callable[[Place], object] = lambda place: None
    recipe: Callable[[Path], Path] = write_recipe

    def __str__(self) -> str:
        return self.name


def edit(name: str, old: str, new: str) -> Callable[[Place], object]:
    def wrong(place: Place) -> None:
        text = (place / name).read_text()
        assert old in text
        (place / name).write_text(text.replace(old, new, 1))

    return wrong


def profile(**settings: object) -> Callable[[Place], dict[str, Any]]:
    """A launch with a cluster profile of its own."""

    def asked(place: Place) -> dict[str, Any]:
        path = place / "mine.yaml"
        if not path.exists():
            path.write_text(yaml.safe_dump({"name": "mine", "nodes": 1, "gpus_per_node": 4, **settings}))
        return {"profile": str(path)}

    return asked


def tools(sinfo: str, *others: str) -> Callable[[Place], object]:
    """SLURM's commands on PATH: sinfo is a script, the others do nothing."""

    def wrong(place: Place) -> None:
        for name, script in (("sinfo", sinfo), *((other, "exit 1") for other in others)):
            program = place / "bin" / name
            program.parent.mkdir(exist_ok=True)
            program.write_text(f"#!/bin/sh\n{script}\n")
            program.chmod(0o755)

    return wrong


def toy(place: Path) -> Path:
    """The embedded pool, by its own recipe with a name in this folder."""
    path = place / "recipe.yaml"
    path.write_text("extends: toy\niterations: 1\ncombats: 8\n")
    return path


def school(place: Path) -> Path:
    return write_school(place)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A place without SLURM's commands, except those that a case puts into bin."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    yield tmp_path


ALL = ("sbatch", "srun", "squeue", "scontrol", "scancel")
GPU = ("engine.kind=hf", "engine.device=cuda")

NEW = [
    Case("no such recipe", "there is no recipe", asked=lambda place: {"recipe": "toyy"}),
    Case("a recipe that is no YAML", "is not YAML", wrong=edit("recipe.yaml", "name: ", "name: [")),
    Case("an unknown key", "unknown key match.kk", settings=("match.kk=3",)),
    Case("a bad value", "combats", settings=("combats=0",)),
    Case("a setting without a value", "write it as key=value", settings=("combats",)),
    Case("no iterations", "iterations", asked=lambda place: {"iterations": 0}),
    Case(
        "no adapter",
        "adapters/model1/adapter_model.safetensors is missing",
        wrong=lambda place: (place / "adapters/model1/adapter_model.safetensors").unlink(),
    ),
    Case("no base", "nowhere", settings=("pool.base=/nowhere", "engine.kind=hf")),
    Case("no such embedded model", "there is no embedded model", settings=("pool.base=embedded:x", *GPU)),
    Case(
        "a model of the hub that is not fetched", "has not been fetched", settings=("pool.base=hub:a/b", *GPU)
    ),
    Case("no instructions", "prompts.jsonl", wrong=lambda place: (place / "prompts.jsonl").unlink()),
    Case("a broken instruction", "prompts.jsonl, line 1", wrong=edit("prompts.jsonl", '"prompt"', '"promt"')),
    Case("no data of experts", "ada", wrong=lambda place: shutil.rmtree(place / "lessons"), recipe=school),
    Case("an unknown task to score on", "did you mean toy?", settings=("evaluation.tasks=[toyy]",)),
    Case("no validation data", "gone.jsonl", settings=("data.validation=gone.jsonl",)),
    Case(
        "no scores to derive a pool from",
        "pool.derived.scores",
        settings=("pool.derived={scores: gone, repeat: 2}",),
    ),
    Case("no such profile", "there is no profile", asked=lambda place: {"profile": "devclutser"}),
    Case(
        "no such profile in the recipe",
        "there is no profile",
        settings=("cluster.kind=slurm", "cluster.profile=devclutser"),
        wrong=tools("exit 1", *ALL),
    ),
    Case("a profile with an unknown key", "unknown key", asked=profile(gpu={"partitoin": "gpu"})),
    Case(
        "detached without SLURM",
        "--detach needs SLURM, and this run uses the cluster inline",
        asked=lambda place: {"detach": True},
    ),
    Case(
        "SLURM does not answer",
        "SLURM does not answer (no controller): try again when it does",
        asked=profile(),
        wrong=tools('echo "sinfo: error: no controller" >&2; exit 1', *ALL),
    ),
    Case(
        "no srun",
        "srun is not on PATH",
        asked=profile(),
        wrong=tools("echo 'gpu|infinite'", "sbatch", "squeue", "scontrol"),
    ),
    Case(
        "no such partition",
        "which this cluster does not have (it has gpu)",
        asked=profile(gpu={"partition": "gpus"}),
        wrong=tools("echo 'gpu|infinite'", *ALL),
    ),
    Case(
        "more time than the partition allows",
        "allows 5",
        asked=profile(gpu={"partition": "gpu", "time": 90}),
        wrong=tools("echo 'gpu|5:00'", *ALL),
    ),
    Case(
        "too little GPU memory",
        "GiB of GPU memory, and a GPU of profile mine has 0.5",
        settings=("engine.device=cuda",),
        asked=profile(gpu_memory_gib=0.5),
        wrong=tools("echo 'gpu|infinite'", *ALL),
        recipe=toy,
    ),
    Case(
        "a folder with other things in it",
        "is not empty and holds no run",
        wrong=lambda place: files.write_bytes(place / "state/thesis.tex", b"x"),
    ),
    Case(
        "going back where there is nothing",
        "does not exist",
        asked=lambda place: {"resume": place / "state/iter_01", "state": None},
    ),
    Case(
        "a branch from nowhere",
        "--fork needs the iteration",
        asked=lambda place: {"fork": place / "branch", "state": None},
    ),
]


@pytest.mark.parametrize("case", NEW, ids=str)
def test_a_run_that_cannot_begin_leaves_nothing_behind(case: Case, place: Place) -> None:
    asked = {"recipe": str(case.recipe(place)), "state": place / "state", "settings": case.settings}
    asked |= case.asked(place)
    case.wrong(place)
    assert case.says in refused(LaunchRequest(**asked), place)
    assert (place / "state").exists() == (case.name == "a folder with other things in it")


def test_too_few_gpus_for_one_base_are_refused_before_anything_is_written(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    settings = ("engine.kind=vllm", "engine.vllm.tensor_parallel=2", "cluster.kind=local")
    asked = LaunchRequest(recipe=str(toy(place)), state=place / "state", settings=settings)
    assert "tensor_parallel is 2, and this machine has 1 GPU:" in refused(asked, place)
    assert not (place / "state").exists()


# --- a run that is there


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    run = begin(folder)
    advance(run, 1)
    advance(run, 2)
    run.state.root.rename(folder / "parent")
    return folder


@pytest.fixture
def there(original: Path, place: Place) -> Place:
    shutil.copytree(original, place, dirs_exist_ok=True)
    return place


def state_of(place: Place) -> StateDir:
    return StateDir(place / "parent")


def tasks_of_iteration_2_run(place: Place) -> None:
    run = Run.open(state_of(place))
    attempts = AttemptDir(run, Plan(), 2)
    attempts.assign([Plan().work(run, 2)], "local")
    number = attempts.all()[-1].number
    files.write_json(attempts.record_file(number, 0), new_record(0, 1))


CHANGED = [
    Case("another recipe", "match.k: 5, now 2", settings=("match.k=2",)),
    Case("an edited recipe", "recipe.yaml was changed", wrong=edit("parent/recipe.yaml", "alpha: 0.6", "alpha: 0.5")),
    Case("an edited instruction", "train.jsonl is missing or was changed", wrong=edit("parent/data/train.jsonl", "question 3", "question 4")),
    Case("an edited standing", "iter_01/standing.json was changed", wrong=edit("parent/iter_01/standing.json", "0", "1")),
    Case("another schema version", "schema version 2", wrong=edit("parent/run.json", '"schema_version": 1', '"schema_version": 2')),
    Case("no run.json", "restore run.json", wrong=lambda place: (place / "parent/run.json").unlink()),
    Case("no recipe.yaml", "recipe.yaml is missing: restore it from a copy", wrong=lambda place: (place / "parent/recipe.yaml").unlink()),
    Case("an unknown task to score on", "did you mean toy?", settings=("evaluation.tasks=[toyy]",)),
    Case("no such profile", "there is no profile", asked=lambda place: {"profile": "devclutser"}),
    Case("detached without SLURM", "--detach needs SLURM", asked=lambda place: {"detach": True}),
    Case("SLURM is not there", "is not on PATH", settings=("cluster.kind=slurm",), wrong=tools("exit 1", "sbatch")),
]  # fmt: skip
"""Refused for every way to continue the run: continue, roll back, branch."""

WAYS: dict[str, Callable[[Place], dict[str, Any]]] = {
    "on": lambda place: {"state": place / "parent", "iterations": 4},
    "back": lambda place: {"resume": place / "parent/iter_01"},
    "branch": lambda place: {"resume": place / "parent/iter_01", "fork": place / "branch"},
}


@pytest.mark.parametrize(
    ("case", "way"),
    # A branch may play by other rules.
    [(case, way) for case in CHANGED for way in WAYS if (case.name, way) != ("another recipe", "branch")],
    ids=str,
)
def test_a_run_that_cannot_go_on_stays_as_it_is(case: Case, way: str, there: Place) -> None:
    asked = {"settings": case.settings, **WAYS[way](there), **case.asked(there)}
    case.wrong(there)
    assert case.says in refused(LaunchRequest(**asked), there)
    assert not (there / "branch").exists()


BACK = [
    Case("what is not committed", "is not committed", wrong=lambda place: (place / "parent/iter_07").mkdir(), asked=lambda place: {"resume": place / "parent/iter_07"}),
    Case("tasks that run", "tasks of plan of iteration 2 are still running", wrong=tasks_of_iteration_2_run),
    Case("two states", "leave --state out", asked=lambda place: {"state": place / "other"}),
]  # fmt: skip


@pytest.mark.parametrize("case", BACK, ids=str)
def test_a_run_that_cannot_go_back_stays_as_it_is(case: Case, there: Place) -> None:
    case.wrong(there)
    asked = {**WAYS["back"](there), **case.asked(there)}
    assert case.says in refused(LaunchRequest(**asked), there)
    assert not (there / "other").exists()


def another_run(place: Place) -> None:
    shutil.copytree(place / "parent", place / "branch")


def a_run_without_its_json(place: Place) -> None:
    another_run(place)
    (place / "branch/run.json").unlink()


BRANCH = [
    Case("another pool", "keeps the pool and the data", settings=("pool.models=[{name: a}, {name: b}, {name: c}]",)),
    Case("other data", "keeps the pool and the data", settings=("data.size=5",)),
    Case("another preset", "name the recipe file again", settings=("reputation.preset=authors",)),
    Case("what is not committed", "is not committed", wrong=lambda place: (place / "parent/iter_07").mkdir(), asked=lambda place: {"resume": place / "parent/iter_07"}),
    Case("a stranger's file", "is not empty, choose another", wrong=lambda place: files.write_bytes(place / "branch/thesis.tex", b"x")),
    Case("another run", "is not empty, choose another", wrong=another_run),
    Case("a run without its run.json", "restore run.json", wrong=a_run_without_its_json),
    Case("a state", "leave --state out", asked=lambda place: {"state": place / "parent"}),
]  # fmt: skip


@pytest.mark.parametrize("case", BRANCH, ids=str)
def test_a_refused_branch_leaves_nothing_behind(case: Case, there: Place) -> None:
    case.wrong(there)
    before = (there / "branch").exists()
    asked = {**WAYS["branch"](there), "settings": case.settings, **case.asked(there)}
    assert case.says in refused(LaunchRequest(**asked), there)
    assert (there / "branch").exists() == before


def test_a_branch_whose_judges_cannot_vote_as_its_recipe_says_is_refused_before_it_is_made(
    place: Place,
) -> None:
    """Like a new run with that recipe; its members are those of its parent."""
    begin_or_continue(StateDir(place / "parent"), load(toy(place), ["cluster.kind=inline"]))
    settings = ("judging.mode=expected", "judging.labels=[bad, good]")
    asked = LaunchRequest(resume=place / "parent/iter_00", fork=place / "branch", settings=settings)
    assert "judging label 'bad' is not one token" in refused(asked, place)
    assert not (place / "branch").exists()


def test_a_run_that_is_driven_stays_as_it_is(there: Place) -> None:
    """A dry run works all the same."""

    def beside_the_clock() -> dict[str, tuple[int, int]]:
        """A file is put beside the lock for a moment, to learn the time by its disk's clock."""
        return {name: of for name, of in tree(there).items() if name != "parent/jobs/lock"}

    with RunLock(state_of(there), print):
        before = beside_the_clock()
        for way in ("on", "back"):
            with pytest.raises(SpartaError, match="is being driven by"):
                launch(LaunchRequest(**WAYS[way](there)), Screen())
            launch(LaunchRequest(**WAYS[way](there), dry_run=True), Screen())
        assert beside_the_clock() == before

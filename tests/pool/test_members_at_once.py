"""How many members a task trains at the same time: all on a CPU, what fits on a GPU, and what the recipe says."""

from pathlib import Path
from typing import Any

import pytest
from support.tiny_adapters import Member, random_examples

from sparta.errors import SpartaError
from sparta.phases.train import Train
from sparta.pool.members_at_once import members_at_once, members_that_fit
from sparta.recipes.load import load
from sparta.recipes.schema import Recipe
from sparta.training.job import TrainingJob


def recipe(together: Any, *settings: str) -> Recipe:
    return load("toy", [f"cluster.train_together={together}", "engine.device=cpu", *settings])


@pytest.fixture
def jobs(member: Member, tmp_path: Path) -> list[TrainingJob]:
    return [
        TrainingJob(
            model=f"m{number}",
            base=str(member.base),
            adapter=member.adapter,
            examples=random_examples(8),
            out=tmp_path / str(number),
            work=tmp_path / f"work{number}",
            settings=recipe("auto").dpo,
            dtype="auto",
            device="cpu",
            seed=number,
        )
        for number in range(5)
    ]


@pytest.mark.parametrize(("asked", "made"), [("auto", 5), (1, 1), (3, 3), (8, 5)])
def test_on_a_cpu_all_of_them_or_as_many_as_the_recipe_says(
    jobs: list[TrainingJob], asked: Any, made: int
) -> None:
    assert members_at_once(recipe(asked), jobs[0].base, jobs) == made


def test_on_a_gpu_auto_takes_what_fits_and_at_least_one(jobs: list[TrainingJob]) -> None:
    auto, base = recipe("auto"), jobs[0].base
    assert members_that_fit(auto, base, jobs, 5, free=80.0) == 5
    assert members_that_fit(auto, base, jobs, 5, free=0.5) == 1


def test_on_a_gpu_a_number_beyond_memory_is_refused_with_the_remedy(jobs: list[TrainingJob]) -> None:
    with pytest.raises(
        SpartaError,
        match=r"cluster\.train_together is 4: DPO of 4 members .* estimated to take 1\.\d GiB .* 0\.5 are free: set it to 1 or to auto",
    ):
        members_that_fit(recipe(4), jobs[0].base, jobs, 4, free=0.5)


@pytest.mark.parametrize("given", ["0", "-1", "lots", "1.5", "true", "[2]"])
def test_what_is_no_number_of_members_is_refused(given: str) -> None:
    with pytest.raises(SpartaError, match=r"cluster\.train_together.*is auto or a whole number from 1 on"):
        recipe(given)


class _Run:
    """What Train.work reads of a run: six members on two bases."""

    def __init__(self, together: Any) -> None:
        self.recipe = recipe(together)
        self.bases = {f"m{number}": "ab"[number % 2] for number in range(6)}
        self.models = tuple(self.bases)


@pytest.mark.parametrize(("asked", "tasks"), [("auto", 6), (1, 6), (2, 4), (3, 2), (9, 2)])
def test_a_number_decides_how_trainings_are_shared_out_and_no_task_gets_two_bases_for_it(
    asked: Any, tasks: int
) -> None:
    run: Any = _Run(asked)
    items = Train().work(run, 1)
    bundles: dict[str, set[str]] = {}
    for item in items:
        bundles.setdefault(item.bundle, set()).add(item.base)
    assert len(bundles) == tasks == Train().expected(run, 1).bundles
    assert all(len(bases) == 1 for bases in bundles.values())

"""How a task trains: how many members at the same time, and whether with gradient checkpointing; by memory on a GPU, and as the recipe says."""

import json
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import pytest
from support.shapes import QWEN_7B
from support.tiny_adapters import Member, random_examples

from sparta.errors import SpartaError
from sparta.phases.train import Train
from sparta.pool.training_layout import (
    Layout,
    layout_of,
    layout_that_fits,
    settled_sft,
    sft_fits,
)
from sparta.recipes.load import load
from sparta.recipes.pool import Lora, Sft
from sparta.recipes.schema import Recipe
from sparta.training.adapter_folder import WEIGHTS
from sparta.training.dpo import train_members
from sparta.training.job import PreferenceExample, SftExample, SftJob, TrainingJob, silent
from sparta.training.new_adapter import fresh_shapes


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


@pytest.fixture(scope="module")
def seven_billion(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The shape of Qwen2.5-7B, and beside it an adapter of rank 16 of which the file's header is true and the content empty."""
    folder = tmp_path_factory.mktemp("qwen")
    (folder / "config.json").write_text(json.dumps(QWEN_7B))
    entries, end = {}, 0
    for name, shape in fresh_shapes(str(folder), Lora(rank=16)).items():
        size = 4 * prod(shape)
        entries[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    with (folder / WEIGHTS).open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + end)
    return str(folder)


def long_jobs(
    jobs: Sequence[TrainingJob], base: str, count: int, prompt: int, completion: int
) -> list[TrainingJob]:
    """Jobs of `count` members on `base`, one pair a step, of so many tokens."""
    pair = PreferenceExample((1,) * prompt, (2,) * completion, (3,) * completion)
    settings = jobs[0].settings.model_copy(update={"batch_size": 1, "max_length": 2048})
    changed = {"base": base, "adapter": Path(base), "examples": (pair,), "settings": settings}
    return [replace(jobs[0], model=f"m{number}", **changed) for number in range(count)]


@pytest.mark.parametrize(("asked", "made"), [("auto", 5), (1, 1), (3, 3), (8, 5)])
def test_on_a_cpu_all_of_them_or_as_many_as_the_recipe_says(
    jobs: list[TrainingJob], asked: Any, made: int
) -> None:
    assert layout_of(recipe(asked), jobs[0].base, jobs) == Layout(made, checkpointing=False)


def test_on_a_cpu_checkpointing_is_on_if_the_recipe_says_so(jobs: list[TrainingJob]) -> None:
    asked = recipe(2, "dpo.gradient_checkpointing=true")
    layout = layout_of(asked, jobs[0].base, jobs)
    assert layout == Layout(2, checkpointing=True)
    assert all(job.settings.gradient_checkpointing is True for job in layout.applied(jobs))


def test_on_a_gpu_auto_takes_what_fits_and_at_least_one_with_checkpointing(jobs: list[TrainingJob]) -> None:
    auto, base = recipe("auto"), jobs[0].base
    assert layout_that_fits(auto, base, jobs, free=80.0) == Layout(5, checkpointing=False)
    assert layout_that_fits(auto, base, jobs, free=0.5) == Layout(1, checkpointing=True)


def on_gpus(together: Any, *settings: str) -> Recipe:
    return recipe(together, "engine.dtype=auto", "dpo.batch_size=1", *settings)


@pytest.mark.parametrize(
    ("free", "layout"),
    [(79, Layout(10, False)), (39.4, Layout(10, True)), (24.5, Layout(5, True)), (18, Layout(1, True))],
)
def test_ten_members_share_the_passes_of_a_7b_base_also_at_the_price_of_checkpointing(
    seven_billion: str, jobs: list[TrainingJob], free: float, layout: Layout
) -> None:
    ten = long_jobs(jobs, seven_billion, count=10, prompt=330, completion=113)
    assert layout_that_fits(on_gpus("auto"), seven_billion, ten, free) == layout


def test_one_member_is_checkpointed_only_where_its_longest_pair_does_not_fit_without(
    seven_billion: str, jobs: list[TrainingJob]
) -> None:
    short, long = (
        long_jobs(jobs, seven_billion, count=1, prompt=prompt, completion=500) for prompt in (200, 1548)
    )
    assert not layout_that_fits(on_gpus("auto"), seven_billion, short, 39.4).checkpointing
    assert layout_that_fits(on_gpus("auto"), seven_billion, long, 39.4).checkpointing
    assert not layout_that_fits(on_gpus("auto"), seven_billion, long, 79.0).checkpointing
    off = on_gpus("auto", "dpo.gradient_checkpointing=false")
    assert not layout_that_fits(off, seven_billion, long, 39.4).checkpointing, "the recipe's word counts"


def test_a_number_of_members_is_checkpointed_where_it_fits_in_no_other_way(
    seven_billion: str, jobs: list[TrainingJob]
) -> None:
    ten = long_jobs(jobs, seven_billion, count=10, prompt=330, completion=113)
    assert layout_that_fits(on_gpus(2), seven_billion, ten, 39.4) == Layout(2, checkpointing=False)
    assert layout_that_fits(on_gpus(8), seven_billion, ten, 39.4) == Layout(8, checkpointing=True)


def test_a_base_over_two_gpus_has_room_for_what_does_not_fit_one(
    seven_billion: str, jobs: list[TrainingJob]
) -> None:
    ten = long_jobs(jobs, seven_billion, count=10, prompt=330, completion=113)
    two = on_gpus("auto", "cluster.gpus_per_training=2")
    assert layout_that_fits(two, seven_billion, ten, 18) == Layout(4, checkpointing=True, ranks=2)
    assert layout_of(recipe("auto", "cluster.gpus_per_training=2"), jobs[0].base, jobs).ranks == 2


def test_on_a_gpu_a_number_beyond_memory_is_refused_with_the_remedy(
    seven_billion: str, jobs: list[TrainingJob]
) -> None:
    ten = long_jobs(jobs, seven_billion, count=10, prompt=1548, completion=500)
    beyond = r"cluster\.train_together is 10: DPO of 10 members on \S+ at the same time is estimated to take \d+\.\d GiB of GPU memory, and 39\.4 are free"
    with pytest.raises(SpartaError, match=rf"^{beyond}: set it to \d or to auto$"):
        layout_that_fits(on_gpus(10), seven_billion, ten, 39.4)
    with pytest.raises(SpartaError, match=rf"^{beyond}: set it to 1 or to auto, or set dpo\.grad.* to auto$"):
        layout_that_fits(on_gpus(10, "dpo.gradient_checkpointing=false"), seven_billion, ten, 39.4)


def test_members_of_different_bases_are_not_trained_at_the_same_time(
    jobs: list[TrainingJob], tmp_path: Path
) -> None:
    other = replace(jobs[1], base=str(tmp_path / "other"))
    with pytest.raises(ValueError, match="m1 and m0 have different bases: they are not trained together"):
        train_members([jobs[0], other], 2, lambda _: silent, lambda *_: None)
    assert not jobs[0].out.exists()


def test_supervised_training_is_checkpointed_only_where_its_rows_do_not_fit_without(
    seven_billion: str, jobs: list[TrainingJob]
) -> None:
    [job] = long_jobs(jobs, seven_billion, count=1, prompt=1, completion=1)
    rows = (SftExample((1,) * 1900, (True,) * 1900),)
    expert = SftJob(
        model="m", base=seven_billion, adapter=job.adapter, out=job.out, work=job.work, dtype="auto",
        device="cpu", seed=0, examples=rows, settings=Sft(batch_size=1), epochs=1,
    )  # fmt: skip
    assert sft_fits(expert, 39.4)
    assert not sft_fits(replace(expert, settings=Sft(batch_size=4)), 39.4)
    assert settled_sft(recipe("auto"), expert).settings.gradient_checkpointing is False, "on a CPU"


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

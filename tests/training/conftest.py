"""Jobs that train a tiny random member of the pool."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny_adapters import Member, random_examples, random_rows

from sparta.recipes.pool import Sft
from sparta.recipes.schema import Dpo
from sparta.training.job import SftJob, TrainingJob


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_job(member: Member, tmp_path: Path) -> Callable[..., TrainingJob]:
    """Jobs on the tiny model; keywords replace fields, those of `settings` come as a dictionary."""

    def make(name: str = "a", settings: dict[str, Any] | None = None, **fields: Any) -> TrainingJob:
        job = TrainingJob(
            model="tiny",
            base=str(member.base),
            adapter=member.adapter,
            examples=random_examples(16),
            out=tmp_path / "adapters" / name,
            work=tmp_path / "work" / name,
            settings=Dpo(**{"learning_rate": 1e-2, "batch_size": 2, **(settings or {})}),
            dtype="auto",
            device="cpu",
            seed=11,
        )
        return replace(job, **fields)

    return make


@pytest.fixture
def make_expert(member: Member, tmp_path: Path) -> Callable[..., SftJob]:
    """Supervised training on the tiny model, from an adapter that has dropout; keywords as of `make_job`."""

    def make(name: str = "a", settings: dict[str, Any] | None = None, **fields: Any) -> SftJob:
        job = SftJob(
            model="tiny",
            base=str(member.base),
            adapter=member.adapter,
            examples=random_rows(16),
            out=tmp_path / "experts" / name,
            work=tmp_path / "expert work" / name,
            settings=Sft(**{"learning_rate": 1e-2, "batch_size": 2, "accumulation": 1, **(settings or {})}),
            epochs=1,
            dtype="auto",
            device="cpu",
            seed=11,
        )
        return replace(job, **fields)

    return make


@pytest.fixture(scope="session")
def without_dropout(member: Member) -> Path:
    """The adapter of `member` with its dropout off."""
    folder = member.adapter.with_name("without_dropout")
    shutil.copytree(member.adapter, folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"lora_dropout": 0.0}))
    return folder

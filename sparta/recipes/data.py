"""The recipe section for the data: the instructions X, and the user's own validation and test items."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from sparta.arena.rules import Rules
from sparta.names import DATASETS, hint
from sparta.recipes.engine import HOW
from sparta.recipes.pool import HUB, hub_folder, well_formed

Split = Literal["train", "validation", "test"]
Grading = Literal["exact", "number", "math", "letter", "likelihood", "judge"]
DataFormat = Literal[
    "auto", "own", "prompt", "completion", "preference", "messages", "sharegpt", "alpaca", "question"
]
"""The forms of sparta.tasks.user_data.forms."""
COLUMNS = [
    "id",
    "prompt",
    "messages",
    "answer",
    "choices",
    "right",
    "reference",
    "level",
    "system",
    "completion",
    "chosen",
    "rejected",
    "conversations",
    "instruction",
    "input",
    "output",
    "question",
    "context",
    "solution",
]
"""Names that data.columns can give to columns."""


class Data(Rules):
    """The instructions X to align on: a built-in task, or your own data."""

    task: str | None = Field(default=None, description="a task of sparta.tasks; its training split is X")
    folder: str | None = Field(
        default=None,
        description="where prepare_data stores the tasks' data; null: state/datasets of the checkout (for an installed package, of the working directory)",
        json_schema_extra=HOW,
    )
    train: str | None = Field(
        default=None,
        description="your data: a JSONL, JSON, CSV, TSV, Parquet or Arrow file (the first four also as .gz), a folder, or a data set of the hub, "
        "hub:OWNER/NAME[@REVISION]",
    )
    validation: str | None = Field(
        default=None,
        description="with data.train: data to score checkpoints on (the task `own`)",
        json_schema_extra=HOW,
    )
    test: str | None = Field(
        default=None,
        description="with data.validation: data for the selected checkpoints only",
        json_schema_extra=HOW,
    )
    format: DataFormat = Field(
        default="auto",
        description="the form of the rows; auto: recognised by their columns, see jobs/README.md, Your own data",
    )
    columns: dict[str, str] = Field(
        default={},
        description="the columns to read, as {our name: yours}, such as {prompt: question, answer: label}; empty: by their names",
    )
    split: str | dict[Split, str] = Field(
        default="train",
        description="of a folder or a data set with several splits: the one for data.train; data.validation and data.test read those of their "
        "names, unless this is a mapping such as {train: train_sft, validation: test_sft}",
    )
    config: str | None = Field(
        default=None, description="of a data set with several configurations: the one to read"
    )
    grading: Grading = Field(
        default="exact",
        description="how answers to data.validation and data.test are graded: same text; same number; equivalent mathematics; the letter of "
        "a choice; the likelihood of choices; a judge who sees the reference",
        json_schema_extra=HOW,
    )
    size: int | None = Field(
        default=None, ge=1, description="use only this many instructions, from the start; null: all"
    )

    @field_validator("train", "validation", "test")
    @classmethod
    def _well_formed(cls, reference: str | None) -> str | None:
        return reference if reference is None else well_formed(reference)

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, columns: dict[str, str]) -> dict[str, str]:
        for name in columns:
            if name not in COLUMNS:
                raise ValueError(f"{name} is no column that can be read; {hint(name, COLUMNS, 'columns')}")
        return columns

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.task is None) == (self.train is None):
            raise ValueError("set either data.task or data.train, exactly one of them")
        if self.task is not None and (self.validation or self.test):
            raise ValueError(
                f"data.validation and data.test belong to data.train: the task {self.task} has its own"
            )
        if self.test is not None and self.validation is None:
            raise ValueError(
                "data.test needs data.validation: checkpoints are chosen there, and test is read once"
            )
        return self

    @property
    def splits(self) -> dict[Split, str]:
        """The name of each split in a folder or a data set that has several."""
        usual: dict[Split, str] = {"train": "train", "validation": "validation", "test": "test"}
        return {**usual, "train": self.split} if isinstance(self.split, str) else {**usual, **self.split}

    @property
    def of_the_hub(self) -> tuple[str, ...]:
        """The distinct data sets named hub:OWNER/NAME[@REVISION]."""
        named = (self.train, self.validation, self.test)
        return tuple(dict.fromkeys(name for name in named if name and names_hub_data(name)))


def names_hub_data(reference: str) -> bool:
    return reference.startswith(HUB)


def hub_data_folder(reference: str, folder: str | None) -> Path:
    """The folder of the fetched files of the data set `reference`. folder: data.folder of the recipe; None: DATASETS."""
    return hub_folder(reference, str((Path(folder) if folder else DATASETS) / "hub"))

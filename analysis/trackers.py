"""Trackers that a run's numbers can be sent to. Each is a library of its own, which only this needs.

A tracker is one class: `send` returns when everything has been handed over.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from analysis.tracked import Values
from sparta.errors import SpartaError
from sparta.store.layout import StateDir


@dataclass(frozen=True)
class Numbers:
    """What is sent to the run `name` of a tracker. identity: what tells it from runs of the same name. delivered: to be called after each iteration
    that was handed over.
    """

    name: str
    identity: str
    settings: Mapping[str, Any]
    values: Values
    delivered: Callable[[int], None]


class Tracker(Protocol):
    """Where numbers go."""

    def send(self, numbers: Numbers) -> str:
        """Add `numbers` to the run of that name there. Returns how to look at it."""
        ...


class TensorBoard:
    """Event files below STATE/tracked/tensorboard, a folder for each name."""

    def __init__(self, project: str, state: StateDir) -> None:
        self._folder = state.root / "tracked" / "tensorboard"
        self._summary = _library("tensorboard.summary", "tensorboard")

    def send(self, numbers: Numbers) -> str:
        writer = self._summary.Writer(str(self._folder / numbers.name))
        try:
            for t, row in numbers.values.items():
                for metric, value in row.items():
                    writer.add_scalar(metric, value, t)
                writer.flush()
                numbers.delivered(t)
        finally:
            writer.close()
        return f"tensorboard --logdir {self._folder}"


class WandB:
    """Weights & Biases: the numbers go where WANDB_MODE and `wandb login` say. The run's id is that of the state, so it is the same run every time."""

    def __init__(self, project: str, state: StateDir) -> None:
        self._project, self._state = project, state
        self._wandb = _library("wandb")

    def send(self, numbers: Numbers) -> str:
        folder = self._state.root / "tracked"
        folder.mkdir(exist_ok=True)
        run = self._wandb.init(
            project=self._project,
            name=numbers.name,
            id=numbers.identity,
            resume="allow",
            config=dict(numbers.settings),
            dir=str(folder),
        )
        # Scores may come after those of a later iteration, so wandb's own step, which must grow, is not the iteration.
        run.define_metric("iteration")
        run.define_metric("*", step_metric="iteration")
        for t, row in numbers.values.items():
            run.log({"iteration": t, **row})
            numbers.delivered(t)
        where = run.url or f"wandb sync {Path(run.dir).parent}"
        run.finish()
        return str(where)


class Trackio:
    """Trackio: a data base on this machine (TRACKIO_DIR), shown by `trackio show`."""

    def __init__(self, project: str, state: StateDir) -> None:
        self._project = project
        self._trackio = _library("trackio")

    def send(self, numbers: Numbers) -> str:
        self._trackio.init(
            project=self._project,
            name=f"{numbers.name}-{numbers.identity}",
            resume="allow",
            config=dict(numbers.settings),
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        for t, row in numbers.values.items():
            self._trackio.log(row, step=t)
            numbers.delivered(t)
        self._trackio.finish()
        return f"trackio show --project {self._project}"


TRACKERS: Mapping[str, Callable[[str, StateDir], Tracker]] = {
    "tensorboard": TensorBoard,
    "trackio": Trackio,
    "wandb": WandB,
}


def _library(module: str, package: str | None = None) -> ModuleType:
    """The library of a tracker. Raises SpartaError with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = package or module
        raise SpartaError(f"{name} is not installed ({error}): pip install {name}") from error

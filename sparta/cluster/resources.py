"""What a task of a phase needs of the machine that it runs on."""

from typing import TypeGuard

from sparta.cluster.slurm.profile import Device
from sparta.evaluation.grade import GradeAnswers
from sparta.phases.base import ArrayPhase, Phase
from sparta.phases.train import Train
from sparta.phases.train_experts import TrainExperts
from sparta.recipes.schema import Recipe


def runs_an_engine(phase: Phase) -> TypeGuard[ArrayPhase]:
    """Whether its tasks load a base to generate with, and so have a start that pays only by the work behind it."""
    return isinstance(phase, ArrayPhase) and not trains(phase)


def trains(phase: Phase) -> bool:
    """Whether its tasks change weights."""
    return isinstance(phase, (Train, TrainExperts))


def asks_an_endpoint(recipe: Recipe, phase: Phase) -> bool:
    """Whether its tasks have no model of their own: an endpoint generates for them."""
    return runs_an_engine(phase) and phase.engine(recipe).kind == "api"


def device_of(recipe: Recipe, phase: Phase) -> Device:
    """What its tasks run on."""
    return "cpu" if asks_an_endpoint(recipe, phase) else phase.device


def gpus_of(recipe: Recipe, phase: Phase) -> int:
    """GPUs that hold one base together, of a task of `phase`; 0 where it needs none."""
    if not isinstance(phase, ArrayPhase) or device_of(recipe, phase) == "cpu":
        return 0
    return phase.engine(recipe).gpus


def engine_key(phase: Phase) -> str:
    """Where in a recipe the settings of its engine are."""
    return "evaluation.judge.engine" if isinstance(phase, GradeAnswers) else "engine"

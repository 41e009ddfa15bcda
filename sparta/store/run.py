"""A run: a state directory with the recipe frozen in it."""

import platform
import uuid
from datetime import UTC, date, datetime
from functools import cached_property
from importlib import metadata
from typing import Any

import msgspec

from sparta import __version__
from sparta.chat.options import ChatOptions
from sparta.errors import SpartaError
from sparta.names import suggested
from sparta.recipes.load import thaw
from sparta.recipes.schema import Recipe
from sparta.store import files
from sparta.store.disk import present
from sparta.store.layout import IterationDir, StateDir, traces_of_run
from sparta.store.records import SCHEMA_VERSION, Combat, Instruction, Member, SftDataInfo

_PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "submitit", "numpy")


class RunInfo(msgspec.Struct, frozen=True):
    """run.json. genesis: the recipe hash at the start of the chain of manifests (a fork keeps its parent's).

    day: today's date in prompts that mention one; "" in states of earlier versions, which use the date of `created`. A fork keeps its parent's.
    instructions_sha256, lessons_sha256, gold_sha256: of data/train.jsonl, data/lessons.json and data/gold.jsonl; the second is empty where no
    expert is trained from data, the third where the method needs no gold answers.
    forked_from: a fork's parent and the iteration after which it branched, in the format of `origin`.
    """

    schema_version: int
    run_id: str
    recipe_hash: str
    genesis: str
    seed: int
    created: str
    packages: dict[str, str]
    instructions_sha256: str = ""
    lessons_sha256: str = ""
    forked_from: str | None = None
    day: str = ""
    gold_sha256: str = ""

    def origin(self, t: int) -> str:
        """The `forked_from` of a fork of this run after iteration t."""
        return f"{self.run_id} iteration {t}"

    @property
    def inherited(self) -> int:
        """The last iteration inherited from the parent; 0, the initial pool, for a run that is not a fork."""
        return int(self.forked_from.rpartition(" ")[2]) if self.forked_from else 0


class Run:
    """An open run. It reads the files that phases share; those that never change are read once."""

    def __init__(self, state: StateDir, recipe: Recipe, info: RunInfo) -> None:
        self.state = state
        self.recipe = recipe
        self.info = info
        self._plans: dict[int, list[Combat]] = {}

    @classmethod
    def open(cls, state: StateDir) -> "Run":
        """The run in `state`. Raises SpartaError where there is none, run.json is lost, or the schema version differs."""
        if not present(state.run_json):
            refuse_lost_run(state)
            raise SpartaError(
                f"{state.root} holds no run (no run.json): start one with {suggested('launch', '--state', state.root)}"
            )
        version = files.read_json(state.run_json, dict[str, Any]).get("schema_version")
        if version != SCHEMA_VERSION:
            raise SpartaError(
                f"{state.run_json} has schema version {version}, this code reads version {SCHEMA_VERSION}: use the release that wrote it, "
                "or choose another --state"
            )
        # Refuses a pipe, which would block the read.
        present(state.recipe_yaml)
        with files.os_errors_named(state.recipe_yaml):
            recipe = thaw(state.recipe_yaml)
        return cls(state, recipe, files.read_json(state.run_json, RunInfo))

    @staticmethod
    def describe(recipe: Recipe) -> RunInfo:
        """A new identity for a run of `recipe`."""
        now = datetime.now(UTC)
        return RunInfo(
            schema_version=SCHEMA_VERSION,
            run_id=uuid.uuid4().hex[:12],
            recipe_hash=recipe.hash,
            genesis=recipe.hash,
            seed=recipe.seed,
            created=now.isoformat(timespec="seconds"),
            packages={"python": platform.python_version(), "sparta": __version__, **_versions()},
            day=now.date().isoformat(),
        )

    def freeze(self) -> None:
        """Write recipe.yaml. There is no run until `save`."""
        files.write_bytes(self.state.recipe_yaml, self.recipe.to_yaml().encode())

    def save(self) -> None:
        """Write run.json: from now on the state holds a run."""
        files.write_json(self.state.run_json, self.info)

    def refreeze(self, recipe: Recipe) -> None:
        """Continue with `recipe`, which has the same identity but may be carried out differently. It is written, so other processes use it too."""
        if recipe != self.recipe:
            self.recipe = recipe
            self.freeze()

    @cached_property
    def instructions(self) -> list[Instruction]:
        """X as used: data/train.jsonl."""
        return list(files.read_rows(self.state.instructions, Instruction))

    @cached_property
    def sft_data(self) -> dict[str, SftDataInfo]:
        """The training data of experts that are trained from data, by name: data/lessons.json."""
        return (
            files.read_json(self.state.sft_data, dict[str, SftDataInfo]) if self.recipe.pool.experts else {}
        )

    @property
    def day(self) -> date:
        """The day on which the run began, in UTC."""
        return date.fromisoformat(self.info.day or self.info.created[:10])

    @property
    def chat(self) -> ChatOptions:
        """The options for rendering every prompt of the run."""
        return self.recipe.chat.options(self.day)

    @property
    def judge_chat(self) -> ChatOptions:
        """The options for rendering every prompt of the evaluation's judge."""
        judge = self.recipe.evaluation.judge
        return judge.chat.options(self.day) if judge else self.chat

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the pool's models, in the recipe's order."""
        return tuple(model.name for model in self.recipe.pool.models)

    @property
    def bases(self) -> dict[str, str]:
        """The base of every model, as the recipe names it."""
        pool = self.recipe.pool
        return {model.name: pool.base_of(model) for model in pool.models}

    def iteration(self, t: int) -> IterationDir:
        return self.state.iteration(t)

    def plan(self, t: int) -> list[Combat]:
        """The combats of iteration t in plan order; cached, because a plan never changes."""
        if t not in self._plans:
            self._plans = {t: list(files.read_rows(self.iteration(t).plan, Combat))}
        return self._plans[t]

    def pool(self, t: int) -> dict[str, Member]:
        """M^t as committed, by name."""
        return {member.name: member for member in files.read_json(self.iteration(t).pool, list[Member])}


def refuse_lost_run(state: StateDir, upto: int | None = None) -> None:
    """Raises SpartaError where `state` has no run.json but holds files of a run. upto: see `traces_of_run`."""
    if traces := traces_of_run(state, upto):
        left = ", ".join(str(path.relative_to(state.root)) for path in traces[:3]) + ", ..." * (
            len(traces) > 3
        )
        raise SpartaError(
            f"{state.run_json} is missing, and {state.root} holds files of a run ({left}): restore run.json from a copy, or choose another "
            "--state (after an interrupted --fork, type its command again)"
        )


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found

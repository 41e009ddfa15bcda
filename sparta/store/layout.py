"""The paths of a run. Nothing is opened here, and no other module spells out a path of the state."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sparta.errors import SpartaError
from sparta.names import MODEL_NAME, check_model_name
from sparta.store.disk import present

_ITERATION = re.compile(r"iter_([0-9]{2}|[1-9][0-9]{2,})")


@dataclass(frozen=True)
class IterationDir:
    """iter_NN/ of a run: what iteration `t` read and wrote. `responses`, `votes` and `training` are folders of shards."""

    root: Path
    t: int

    @property
    def plan(self) -> Path:
        return self.root / "plan.jsonl"

    @property
    def responses(self) -> Path:
        return self.root / "responses"

    @property
    def votes(self) -> Path:
        return self.root / "votes"

    @property
    def training(self) -> Path:
        return self.root / "training"

    @property
    def combats(self) -> Path:
        return self.root / "combats.jsonl"

    @property
    def preferences(self) -> Path:
        return self.root / "preferences.jsonl"

    @property
    def standing(self) -> Path:
        return self.root / "standing.json"

    @property
    def stats(self) -> Path:
        return self.root / "stats.json"

    @property
    def pool(self) -> Path:
        return self.root / "pool.json"

    @property
    def manifest(self) -> Path:
        return self.root / "MANIFEST.json"

    @property
    def adapters(self) -> Path:
        return self.root / "adapters"

    def adapter(self, model: str) -> Path:
        """Folder of the adapter of `model`. Raises SpartaError where the name is not allowed in a path."""
        return self.adapters / check_model_name(model)


@dataclass(frozen=True)
class EvaluationDir:
    """evals/<task>/<split>/: the checkpoints' answers to the items of one split of a task. All but `items` are folders of shards."""

    root: Path

    @property
    def items(self) -> Path:
        return self.root / "items.jsonl"

    def answers(self, way: str) -> Path:
        """`way`: names the prompt format and the token limit; answers with different ones are kept apart."""
        return self.root / f"answers-{way}"

    def grades(self, digest: str) -> Path:
        """`digest`: of everything that a grade depends on."""
        return self.root / f"grades-{digest}"

    def samples(self, way: str) -> Path:
        """Sampled answers, which no score is made of. `way`: as of `answers`, and how they were sampled."""
        return self.root / f"samples-{way}"

    def set_grades(self, digest: str) -> Path:
        """A judge's grades of sets of sampled answers. `digest`: of everything that they depend on."""
        return self.root / f"set-grades-{digest}"


@dataclass(frozen=True)
class StateDir:
    """The state directory of one run. It may not exist yet."""

    root: Path

    @property
    def run_json(self) -> Path:
        return self.root / "run.json"

    @property
    def recipe_yaml(self) -> Path:
        return self.root / "recipe.yaml"

    @property
    def instructions(self) -> Path:
        return self.root / "data" / "train.jsonl"

    @property
    def sft_data(self) -> Path:
        """The data of experts that are trained from data, if any."""
        return self.root / "data" / "lessons.json"

    @property
    def gold(self) -> Path:
        """Gold answers to the instructions, if the method needs them."""
        return self.root / "data" / "gold.jsonl"

    @property
    def jobs(self) -> Path:
        return self.root / "jobs"

    @property
    def code(self) -> Path:
        """Snapshots of the package that jobs run from."""
        return self.jobs / "code"

    @property
    def compiled(self) -> Path:
        """What vLLM compiled, for all tasks and later launches; safe to remove."""
        return self.jobs / "compiled"

    @property
    def lock(self) -> Path:
        return self.jobs / "lock"

    @property
    def superseded(self) -> Path:
        return self.root / "superseded"

    @property
    def evals(self) -> Path:
        return self.root / "evals"

    @property
    def calls(self) -> Path:
        """Cached answers of an API endpoint, so that no call is paid for twice."""
        return self.root / "calls"

    @property
    def judge_calls(self) -> Path:
        """Cached answers of the endpoint that grades an evaluation, which has its own prices and spending limit."""
        return self.root / "calls" / "evaluation"

    def evaluation(self, task: str, split: str) -> EvaluationDir:
        """Folder of one split of a task."""
        return EvaluationDir(self.evals / task / split)

    def inside(self, relative: str) -> Path:
        """Resolve a path that a file of the state gives relative to the state, such as an adapter in pool.json.

        Raises SpartaError where it leads out of the state.
        """
        path = PurePosixPath(relative)
        if path.is_absolute() or ".." in path.parts:
            raise SpartaError(
                f"a file of {self.root} names {relative!r}, which is outside of it: restore the file from a copy"
            )
        return self.root / relative

    def iteration(self, t: int) -> IterationDir:
        """Folder of iteration `t`: iter_05, iter_12, iter_100."""
        if t < 0:
            raise ValueError(f"there is no iteration {t}")
        return IterationDir(self.root / f"iter_{t:02d}", t)

    def iterations(self) -> list[int]:
        """Iterations that have a folder, ascending; committed or not."""
        if not self.root.is_dir():
            return []
        names = (_ITERATION.fullmatch(path.name) for path in self.root.iterdir() if path.is_dir())
        return sorted(int(name[1]) for name in names if name)

    def committed(self) -> list[int]:
        """Iterations that have a manifest, ascending. `manifest.verify` checks the manifests."""
        return [t for t in self.iterations() if present(self.iteration(t).manifest)]

    def last_committed(self) -> int | None:
        """The latest iteration with a manifest; None where nothing is committed."""
        return max(self.committed(), default=None)

    def next_iteration(self) -> int:
        """The first iteration without a manifest: 0 until there is a pool."""
        last = self.last_committed()
        return 0 if last is None else last + 1


@dataclass(frozen=True)
class StateAfter(StateDir):
    """A read-only preview of a state after a rollback or fork: at `root`, with the iterations of `past` up to `upto`.

    `root` is the folder of `past` for a rollback, and a folder that may not exist yet for a fork.
    """

    past: StateDir
    upto: int

    @property
    def instructions(self) -> Path:
        return self.past.instructions

    @property
    def sft_data(self) -> Path:
        return self.past.sft_data

    @property
    def gold(self) -> Path:
        return self.past.gold

    def inside(self, relative: str) -> Path:
        return self.past.inside(relative)

    def iteration(self, t: int) -> IterationDir:
        return self.past.iteration(t) if t <= self.upto else super().iteration(t)

    def iterations(self) -> list[int]:
        return [t for t in self.past.iterations() if t <= self.upto]


def traces_of_run(state: StateDir, upto: int | None = None) -> list[Path]:
    """Paths that only an actual run leaves, and not a launch that was killed before run.json: later iterations, training, jobs.

    upto: for a fork, the last iteration that it copies from its parent.
    """
    played = [state.iteration(t).root for t in state.iterations() if t > (upto or 0)]
    jobs = StateDir(state.jobs)
    worked = [*(jobs.iteration(t).root for t in jobs.iterations()), jobs.evals]
    trained = [state.iteration(0).training] if upto is None else []
    return [*played, *(path for path in (*trained, *worked) if path.is_dir())]


def parse_iteration(path: str | Path) -> tuple[StateDir, int]:
    """The run and the iteration of a path such as "state/iter_05".

    Raises SpartaError where the last part is not the name of an iteration, or where the folder does not exist.
    """
    given = Path(path)
    folder = given.absolute() if given.name in ("", "..") else given
    name = _ITERATION.fullmatch(folder.name)
    if name is None:
        raise SpartaError(f"{given} is not an iteration: give the folder of one, such as state/iter_05.")
    state = StateDir(folder.parent)
    if not folder.is_dir():
        found = state.iterations()
        known = ", ".join(state.iteration(t).root.name for t in found) if found else "no iterations"
        raise SpartaError(f"{given} does not exist: {state.root} holds {known}; give one that exists.")
    return state, int(name[1])


def parse_checkpoint(name: str) -> tuple[int, str]:
    """Iteration and model of a checkpoint's name, such as iter_05-adder; the model is "" where the name is that of an iteration, iter_05.

    Raises SpartaError for any other name.
    """
    folder, dash, model = name.partition("-")
    iteration = _ITERATION.fullmatch(folder)
    if iteration is None or (dash and MODEL_NAME.fullmatch(model) is None):
        raise SpartaError(
            f"{name!r} is neither a checkpoint, such as iter_05-adder, nor an iteration, such as iter_05."
        )
    return int(iteration[1]), model

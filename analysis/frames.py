"""A run, several runs or a study as pandas data frames. In a notebook, from the top of the repository:

    from analysis import frames
    found = frames.load("state/demo")          # or a study's folder; frames.load_all(["state/one", "state/two"]) for several
    found.votes.groupby("judge", observed=True).score.mean()

A frame is read when it is first asked for, and then kept. `each` yields a large one piece by piece and keeps nothing. No model is loaded, and nothing
is written. Runs that are under way, have failed or were not scored are fine: what is not there yet has no rows. analysis/README.md has the columns.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from analysis import evaluation_rows, run_rows
from analysis.frame_columns import ANSWER_TEXTS, FRAMES, Columns, together, typed
from sparta.errors import SpartaError
from sparta.names import suggested
from sparta.store.disk import present
from sparta.store.layout import StateDir
from sparta.store.manifest import read_manifest
from sparta.store.run import Run
from sparta.studies import manifest as study_manifest
from sparta.studies.layout import StudyDir
from sparta.tasks.base import Split

AXIS = "axis_"
"""Begins the names of the columns that a study's axes have."""

_SCORED = ("answers", "item_scores", "scores")
"""Frames that are read together."""
_READERS = {
    **run_rows.OF_RUN,
    "splits": evaluation_rows.splits,
    "choices": evaluation_rows.choices,
    "comparisons": evaluation_rows.comparisons,
}
"""By frame, what reads its rows of one run."""


@dataclass(frozen=True)
class Source:
    """One run of some frames. label: what the column `run` calls it. extra: the columns of a study."""

    label: str
    run: Run
    extra: Mapping[str, object] = field(default_factory=dict)


class Frames:
    """The frames of some runs. The column `run` says whose a row is; those of a study have `seed` and `axis_...` beside it.

    runs: the runs. study: the manifest, where it is a study; its cells without a state yet are in `waiting` and have no rows.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        study: study_manifest.StudyManifest | None = None,
        waiting: Sequence[str] = (),
    ) -> None:
        self.sources = tuple(sources)
        self.study = study
        self.waiting = tuple(waiting)
        self._kept: dict[str, pd.DataFrame] = {}

    @property
    def models(self) -> tuple[str, ...]:
        """The models of all pools, in the recipes' order."""
        return tuple(dict.fromkeys(model for source in self.sources for model in source.run.models))

    @property
    def before(self) -> tuple[str, ...]:
        """The columns before a frame's own."""
        return ("run", *dict.fromkeys(name for source in self.sources for name in source.extra))

    def run(self, label: str | None = None) -> Run:
        """The run called `label`, or the only one. Raises SpartaError where it is not clear which."""
        found = [source.run for source in self.sources if label in (None, source.label)]
        if len(found) != 1:
            known = ", ".join(source.label for source in self.sources) or "none"
            raise SpartaError(f"there is not exactly one run called {label}: name one of them ({known})")
        return found[0]

    def each(self, name: str) -> Iterator[pd.DataFrame]:
        """The frame `name` piece by piece, one for each run and iteration (of an evaluation: run, task and split) that has rows; nothing is kept."""
        if name not in FRAMES:
            raise SpartaError(f"there is no frame {name}: use one of {', '.join(FRAMES)}")
        for source in self.sources:
            for columns in _read(source.run, name):
                frame = typed(name, columns, source.run.models)
                if len(frame):
                    yield self._placed(source, frame)

    def frame(self, name: str) -> pd.DataFrame:
        """The frame `name`, read once. Callers share it: copy it before you change it."""
        if name not in self._kept:
            if name in _SCORED:
                self._keep_scored()
            else:
                self._kept[name] = together(name, self.each(name), self.before)
        return self._kept[name]

    @property
    def runs(self) -> pd.DataFrame:
        """One row a run: its recipe, seed and how far it is."""
        return self.frame("runs")

    @property
    def iterations(self) -> pd.DataFrame:
        """One row an iteration: combats by result, tokens, GPU time."""
        return self.frame("iterations")

    @property
    def splits(self) -> pd.DataFrame:
        """One row a task and split: how many items were used, and how many there are."""
        return self.frame("splits")

    @property
    def combats(self) -> pd.DataFrame:
        """One row a replayed combat: who met whom on which prompt, the scores, who won, reputations before and after."""
        return self.frame("combats")

    @property
    def responses(self) -> pd.DataFrame:
        """One row a response, with its text."""
        return self.frame("responses")

    @property
    def votes(self) -> pd.DataFrame:
        """One row a vote; the score of a missing one is NaN."""
        return self.frame("votes")

    @property
    def pairs(self) -> pd.DataFrame:
        """One row a preference pair, with both texts."""
        return self.frame("pairs")

    @property
    def standings(self) -> pd.DataFrame:
        """One row an iteration and model: reputation, deviation, and the weight with which it judged."""
        return self.frame("standings")

    @property
    def training(self) -> pd.DataFrame:
        """One row a trained model."""
        return self.frame("training")

    @property
    def updates(self) -> pd.DataFrame:
        """One row a weight update: the loss curves."""
        return self.frame("updates")

    @property
    def answers(self) -> pd.DataFrame:
        """One row an answer of an evaluation, without its text; see `answer_texts`."""
        return self.frame("answers")

    @property
    def item_scores(self) -> pd.DataFrame:
        """One row an answer and metric that has a score."""
        return self.frame("item_scores")

    @property
    def scores(self) -> pd.DataFrame:
        """One row a task, split, checkpoint and metric: the mean over graded items, and how many are not."""
        return self.frame("scores")

    @property
    def choices(self) -> pd.DataFrame:
        """One row a chosen checkpoint and metric, with its test score and interval."""
        return self.frame("choices")

    @property
    def comparisons(self) -> pd.DataFrame:
        """One row a paired test against another run that `evaluate.py --against` made."""
        return self.frame("comparisons")

    @property
    def cost(self) -> pd.DataFrame:
        """One row an iteration and part of its GPU time (or task time); `idle` is a part."""
        return self.frame("cost")

    def answer_texts(self, task: str, split: Split, label: str | None = None) -> pd.DataFrame:
        """The answers of one run to a split, with question, right answer and text. It may be large, and is not kept."""
        columns = evaluation_rows.texts(self.run(label), task, split)
        return pd.DataFrame(
            {name: pd.Series(columns[name], dtype=kind) for name, kind in ANSWER_TEXTS.items()}
        )

    def _keep_scored(self) -> None:
        """Read answers, scores by item and means in one pass over the answers."""
        parts: dict[str, list[pd.DataFrame]] = {name: [] for name in _SCORED}
        for source in self.sources:
            for split in evaluation_rows.scored_splits(source.run):
                for name, columns in zip(_SCORED, split, strict=True):
                    parts[name].append(self._placed(source, typed(name, columns, source.run.models)))
        for name, found in parts.items():
            self._kept[name] = together(name, found, self.before)

    def _placed(self, source: Source, frame: pd.DataFrame) -> pd.DataFrame:
        """`frame` with the columns that say whose it is."""
        for place, name in enumerate(self.before):
            value = source.label if name == "run" else source.extra.get(name)
            column = pd.Categorical([value], categories=[] if value is None else [value])
            # `runs` has a seed of its own, which is that of the cell.
            frame = frame.drop(columns=name, errors="ignore")
            frame.insert(place, name, column.take([0] * len(frame)))
        return frame


def load(path: str | Path) -> Frames:
    """The frames of a state, or of the study in the folder `path`. Raises SpartaError where there is neither, or a manifest is broken."""
    root = Path(path)
    return load_study(root) if present(StudyDir(root).manifest) else load_all({root.resolve().name: root})


def load_all(paths: Sequence[str | Path] | Mapping[str, str | Path]) -> Frames:
    """The frames of several states; `run` is the folder's name, or the name that `paths` gives it."""
    named = dict(paths) if isinstance(paths, Mapping) else {Path(path).resolve().name: path for path in paths}
    if len(named) != len(paths):
        raise SpartaError(
            "two of the states have folders of one name: give each a name, as in load_all({'ours': path})"
        )
    return Frames([Source(label, _opened(Path(path))) for label, path in named.items()])


def load_study(path: str | Path) -> Frames:
    """The frames of all cells of a study that have begun. `run` is the cell, `seed` the recipe's, `axis_NAME` the level of each axis."""
    place = StudyDir(Path(path))
    study = study_manifest.read_manifest(place)
    sources, waiting = [], []
    for cell in study.cells:
        state = place.cell(cell.name)
        if not present(state.run_json):
            waiting.append(cell.name)
            continue
        extra = {"seed": cell.seed, **{f"{AXIS}{axis}": cell.levels[axis] for axis in study.axes}}
        sources.append(Source(cell.name, _opened(state.root), extra))
    if not sources:
        raise SpartaError(
            f"no cell of the study in {place.root} has begun: run {suggested('study', place.root)}"
        )
    return Frames(sources, study, waiting)


def _opened(root: Path) -> Run:
    """The run in `root`, if the manifests of its committed iterations can be read."""
    run = Run.open(StateDir(root))
    for t in run.state.committed():
        read_manifest(run.iteration(t))
    return run


def _read(run: Run, name: str) -> Iterator[Columns]:
    """The rows of a frame, piece by piece."""
    if name in _SCORED:
        return (split[_SCORED.index(name)] for split in evaluation_rows.scored_splits(run))
    return _READERS[name](run)

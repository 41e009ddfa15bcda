"""How diverse a run's answers are (Tables 2 and 8, Figure 6 of the paper): python analysis/diversity.py [STATE] [--beside STATE] [--out FOLDER]

Every function takes a run and returns a pandas DataFrame. No model is loaded, except one of sentence embeddings where it is asked for.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

sys.path.insert(0, str(Path(__file__).parents[1]))

from analysis.program import parser_of, run_program
from sparta.errors import SpartaError
from sparta.evaluation.diversity import (
    ENTROPIES,
    bleu_distance,
    cosines,
    edit_distance,
    embedding_distance,
    entropies,
)
from sparta.evaluation.embeddings import Embed, load_embedder
from sparta.evaluation.grade_sets import set_grades_folder
from sparta.evaluation.sample_sets import AnswerSet, Texts, by_checkpoint, sets_of_model, sets_of_pool
from sparta.evaluation.statistics import interval
from sparta.names import suggested
from sparta.store import files
from sparta.store.disk import present
from sparta.store.layout import StateDir, parse_checkpoint
from sparta.store.records import Pair, SampledAnswer, SetGrade, set_grade_key
from sparta.store.run import Run
from sparta.store.shards import iter_shards, read_shards

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

METRICS = ("edit", "bleu", "embed", "llm")
"""The columns of Table 2, in its order; the first three are distances (0: equal), llm is a judge's score from 1 to 10."""
TITLES = dict(
    zip(METRICS, ("edit distance", "BLEU distance", "embedding distance", "judge (1 to 10)"), strict=True)
)
OF_SETS = (
    "run", "method", "task", "sampling", "iteration", "of", "entry", "item_id", "number", "size", "left_out", *METRICS,
)  # fmt: skip
OF_PAIRS = ("run", "method", "iteration", "combat_id", *ENTROPIES, "similarity")
WHOSE = {"pool": "one answer of each model", "model": "answers of one model"}
NAMED = 5
"""So many items that are left out are named; of more, only the number is said."""
_WORTH_PROCESSES = 200
"""With fewer sets or texts, starting processes takes longer than measuring."""

A = TypeVar("A")
B = TypeVar("B")


def sets(run: Run, embed: Embed | None = None, workers: int | None = None) -> "DataFrame":
    """One row a set of sampled answers to one item; columns OF_SETS, documented in analysis/README.md. Empty where nothing was sampled.

    embed: for the column `embed`. workers: processes; None: one a CPU. Sets of a model have the number of answers that all its items have, see `gaps`.
    """
    from pandas import DataFrame

    rows = []
    for sampled in samples_of(run):
        found = list(_sets_of(run, sampled.texts))
        distances = _in_parallel(_distances, [one.texts for one in found], workers)
        embedded = _embedding_distances(found, embed)
        grades = _grades(run, sampled.folder)
        for one, (edit, bleu), apart in zip(found, distances, embedded, strict=True):
            t, model = parse_checkpoint(one.entry)
            key = set_grade_key(sampled.task, one.entry, one.size, one.item_id)
            grade = grades.get(key) if one.number == 0 else None
            about = (
                str(run.state.root),
                run.recipe.method,
                sampled.task,
                sampled.way,
                t,
                "model" if model else "pool",
            )
            left_out = one.size - len(one.texts)
            rows.append(
                (*about, one.entry, one.item_id, one.number, one.size, left_out, edit, bleu, apart, grade)
            )
    frame = DataFrame(rows, columns=OF_SETS)
    return frame.astype(dict.fromkeys(METRICS, float))


class SampledAnswers(NamedTuple):
    """The sampled answers in one folder. way: how they were prompted and sampled, as in the folder's name."""

    task: str
    way: str
    folder: Path
    texts: Texts


def samples_of(run: Run) -> Iterator[SampledAnswers]:
    """The sampled answers of `run`, folder by folder."""
    for folder in sorted(run.state.evals.glob("*/*/samples-*")):
        task, way = folder.parent.parent.name, folder.name.removeprefix("samples-")
        yield SampledAnswers(task, way, folder, by_checkpoint(iter_shards(folder, SampledAnswer)))


def gaps(run: Run) -> list[str]:
    """What is not complete, in sentences: a checkpoint has fewer answers than another one of the same folder, or its items do not have the same number."""
    found = []
    for sampled in samples_of(run):
        counts = {name: sum(map(len, of_items.values())) for name, of_items in sampled.texts.items()}
        most = max(counts.values(), default=0)
        found += [
            f"{sampled.task}: {name} has {count:,} of {most:,} sampled answers; sets that lack one are left out"
            for name, count in counts.items()
            if count < most
        ]
        for name, of_items in sampled.texts.items():
            size, short = _set_size(of_items)
            longest = max(map(len, of_items.values()), default=0)
            if size > 1 and size < longest:
                found.append(
                    f"{sampled.task}: the items of {name} have {size} to {longest} sampled answers; its sets are the first {size} of each"
                )
            if size > 1 and short:
                found.append(
                    f"{sampled.task}: {len(short)} of {len(of_items):,} items of {name} have fewer than two sampled answers and no set: {_some(short)}"
                )
    return found


def _some(names: Sequence[str]) -> str:
    """The first of `names`, and how many more there are."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _set_size(of_items: Mapping[str, Mapping[int, str]]) -> tuple[int, list[str]]:
    """The size of the sets of one checkpoint: the number of sampled answers that all its items have. Items with fewer than two do
    not count; they are returned too. 1 if no item has more.
    """
    counts = {item: _leading(answers) for item, answers in of_items.items()}
    size = min((count for count in counts.values() if count > 1), default=1)
    return size, [item for item, count in counts.items() if count < 2]


def _leading(answers: Mapping[int, str]) -> int:
    """How many answers there are before the first number that is missing."""
    return next(number for number in range(len(answers) + 1) if number not in answers)


def by_iteration(frame: "DataFrame") -> "DataFrame":
    """`sets`, one or several runs', by run, task, iteration and whose answers: mean of each metric with its 95 % bootstrap interval over items.

    Columns: those of the groups, metric, mean, low, high, items. A metric that no set has is left out.
    """
    from pandas import DataFrame

    groups = ["run", "method", "task", "sampling", "of", "iteration"]
    rows = []
    for about, group in frame.groupby(groups, sort=False):
        means = group.groupby("item_id", sort=False)[list(METRICS)].mean()
        for metric in METRICS:
            values = means[metric].dropna()
            if len(values):
                low, high = interval(values.to_list())
                rows.append((*about, metric, values.mean(), low, high, len(values)))
    return DataFrame(rows, columns=[*groups, "metric", "mean", "low", "high", "items"])


def table2(frame: "DataFrame") -> "DataFrame":
    """Table 2 from `sets` of one or several runs: the first and the last sampled iteration of each, means over items."""
    long = by_iteration(frame)
    about = ["run", "method", "task", "sampling", "of"]
    last = long.groupby(about)["iteration"].transform("max")
    first = long.groupby(about)["iteration"].transform("min")
    ends = long[(long["iteration"] == first) | (long["iteration"] == last)]
    table = ends.pivot(index=[*about, "iteration"], columns="metric", values="mean")
    items = ends.groupby([*about, "iteration"])["items"].max()
    return table.reindex(columns=list(METRICS)).join(items).reset_index().rename_axis(columns=None)


def figure6(frame: "DataFrame") -> "Figure":
    """Figure 6 from `sets`: each metric over iterations, one curve for each task and run and for whose answers, with 95 % intervals over items."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    long = by_iteration(frame)
    shown = [metric for metric in METRICS if (long["metric"] == metric).any()]
    if not shown:
        raise SpartaError("nothing was sampled, so there is no diversity to draw")
    figure = Figure(figsize=(1.5 + 3.6 * len(shown), 3.8), layout="constrained")
    axes = figure.subplots(1, len(shown), squeeze=False)[0]
    curves = ["run", "task", "sampling", "of"]
    several = [name for name in curves[:3] if long[name].nunique() > 1]
    for axis, metric in zip(axes, shown, strict=True):
        for about, curve in long[long["metric"] == metric].groupby(curves, sort=False):
            named = dict(zip(curves, about, strict=True))
            label = ", ".join([*(named[name] for name in several), WHOSE[named["of"]]])
            line = axis.plot(curve["iteration"], curve["mean"], marker="o", markersize=3, label=label)[0]
            axis.fill_between(
                curve["iteration"], curve["low"], curve["high"], alpha=0.2, color=line.get_color()
            )
        axis.set_title(TITLES[metric], fontsize=11)
        axis.set_xlabel("iteration")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.25)
    handles = {
        label: handle
        for axis in axes
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", frameon=False, fontsize=9)
    return figure


def pairs(run: Run, embed: Embed | None = None, workers: int | None = None) -> "DataFrame":
    """One row a preference pair of two responses: H(chosen) - H(rejected) in bits for each of ENTROPIES, and the cosine of their embeddings.

    Columns OF_PAIRS. Pairs that an earlier iteration made, pairs of judgements (Meta-Rewarding), and pairs with a gold answer (SPIN), which no model wrote, are
    left out. NaN: a text is too short.
    """
    from pandas import DataFrame

    kept = [
        (t, pair)
        for t in run.state.iterations()
        if present(run.iteration(t).preferences)
        for pair in files.read_rows(run.iteration(t).preferences, Pair)
        if pair.iteration == t and "/" not in pair.combat_id and all(pair.models)
    ]
    texts = list(dict.fromkeys(text for _, pair in kept for text in (pair.chosen, pair.rejected)))
    known = dict(zip(texts, _in_parallel(entropies, texts, workers), strict=True))
    nan = float("nan")
    similar = [nan] * len(kept)
    if embed is not None and kept:
        place, vectors = {text: at for at, text in enumerate(texts)}, embed(texts)
        sides = ([place[getattr(pair, side)] for _, pair in kept] for side in ("chosen", "rejected"))
        similar = list(cosines(*(vectors[side] for side in sides)))
    rows = []
    for (t, pair), cosine in zip(kept, similar, strict=True):
        chosen, rejected = known[pair.chosen].by_name, known[pair.rejected].by_name
        differences = (
            nan if (a := chosen[name]) is None or (b := rejected[name]) is None else a - b
            for name in ENTROPIES
        )
        rows.append((str(run.state.root), run.recipe.method, t, pair.combat_id, *differences, cosine))
    frame = DataFrame(rows, columns=OF_PAIRS)
    return frame.astype(dict.fromkeys((*ENTROPIES, "similarity"), float))


def table8(frame: "DataFrame", by: Sequence[str] = ("run", "method")) -> "DataFrame":
    """Table 8 from `pairs` of one or several runs: mean |H(chosen) - H(rejected)| in bits, and mean similarity, over all pairs that have one.

    The paper says neither the unit nor whether differences are absolute; here they are, because the table is about how much two texts differ. by:
    the columns to group by; with "iteration" too, it has a row an iteration.
    """
    absolute = frame.assign(**{name: frame[name].abs() for name in ENTROPIES})
    groups = absolute.groupby(list(by), sort=False)
    return groups[[*ENTROPIES, "similarity"]].mean().join(groups.size().rename("pairs")).reset_index()


def _sets_of(run: Run, texts: Texts) -> Iterator[AnswerSet]:
    """All complete sets of `texts`: of each pool with several models, and of each checkpoint with several samples of every item, see `_set_size`."""
    most = max((len(answers) for of_items in texts.values() for answers in of_items.values()), default=0)
    for t in sorted({parse_checkpoint(name)[0] for name in texts}):
        iteration, models = run.iteration(t).root.name, list(run.pool(t))
        if len(models) > 1:
            yield from sets_of_pool(texts, iteration, models, most)
    for name, of_items in texts.items():
        size, _ = _set_size(of_items)
        if size > 1:
            yield from sets_of_model(texts, name, size)


def _distances(texts: Sequence[str]) -> tuple[float | None, float | None]:
    return edit_distance(texts), bleu_distance(texts)


def _embedding_distances(found: Sequence[AnswerSet], embed: Embed | None) -> Iterator[float | None]:
    """The embedding distance of each set. Each text is embedded once an iteration."""
    if embed is None:
        yield from [None] * len(found)
        return
    texts = list(dict.fromkeys(text for one in found for text in one.texts))
    place, vectors = {text: at for at, text in enumerate(texts)}, embed(texts)
    for one in found:
        yield embedding_distance(vectors[[place[text] for text in one.texts]])


def _grades(run: Run, samples: Path) -> dict[str, float | None]:
    """The scores of sets by the recipe's judge, by key; none where the recipe names no judge."""
    if run.recipe.evaluation.judge is None:
        return {}
    folder = set_grades_folder(run, samples)
    return {key: row.score for key, row in read_shards(folder, SetGrade).items()}


def _in_parallel(function: Callable[[A], B], values: Sequence[A], workers: int | None) -> list[B]:
    """`function` of each value, in order."""
    count = len(os.sched_getaffinity(0)) if workers is None else workers
    if count < 2 or len(values) < _WORTH_PROCESSES:
        return list(map(function, values))
    # Not forked: the process may have threads, of torch for example.
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
        try:
            return list(pool.map(function, values, chunksize=50))
        except BrokenProcessPool as error:
            raise SpartaError(
                "a process that measures texts was killed, perhaps for lack of memory: try again with --workers 1"
            ) from error


def _embedder(run: Run, given: str | None) -> Embed | None:
    reference = given or run.recipe.evaluation.embeddings
    return None if reference is None else load_embedder(reference, run.recipe.pool.folder)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of(__doc__)
    parser.add_argument(
        "--beside",
        action="append",
        type=Path,
        default=[],
        metavar="STATE",
        help="another run for the same tables; may be repeated",
    )
    parser.add_argument(
        "--embeddings",
        metavar="MODEL",
        help="a sentence-transformers model: a folder, or hub:OWNER/NAME that was fetched (default: evaluation.embeddings of the recipe)",
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes that measure (default: one a CPU)"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: diversity in the state's evals/")

    def work(args: argparse.Namespace, state: Path) -> None:
        for line in report(state, args.beside, args.embeddings, args.workers, args.out):
            print(line)

    return run_program(parser, arguments, work)


def report(
    state: Path, beside: Sequence[Path], embeddings: str | None, workers: int | None, out: Path | None
) -> Iterator[str]:
    """Write tables and figure of the runs, and yield what is said about them. Raises SpartaError where there is nothing to measure."""
    from pandas import concat

    runs = [Run.open(StateDir(folder)) for folder in dict.fromkeys((state, *beside))]
    embed = _embedder(runs[0], embeddings)
    of_sets = concat([sets(run, embed, workers) for run in runs], ignore_index=True)
    of_pairs = concat([pairs(run, embed, workers) for run in runs], ignore_index=True)
    if of_sets.empty and of_pairs.empty:
        raise SpartaError(
            f"{state} has neither sampled answers nor preference pairs of two responses: sample answers with {suggested('sample', state)}"
        )
    folder = out or runs[0].state.evals / "diversity"
    folder.mkdir(parents=True, exist_ok=True)
    for run in runs:
        yield from gaps(run)
    if of_sets.empty:
        yield f"no answers were sampled, so there is no Table 2: {suggested('sample', state)}"
    else:
        yield from _written("Table 2: diversity of sets of answers", table2(of_sets), folder / "table2.csv")
        of_sets.to_csv(folder / "sets.csv", index=False)
        figure6(of_sets).savefig(folder / "figure6.png", dpi=130)
        yield f"figure: {folder / 'figure6.png'}"
        if left_out := int((of_sets["left_out"] > 0).sum()):
            yield f"{left_out:,} of {len(of_sets):,} sets have empty answers, which are left out of them"
    if not of_pairs.empty:
        yield from _written(
            "Table 8: chosen against rejected responses", table8(of_pairs), folder / "table8.csv"
        )
        of_pairs.to_csv(folder / "pairs.csv", index=False)
        for name in ENTROPIES:
            if short := int(of_pairs[name].isna().sum()):
                yield f"{short:,} of {len(of_pairs):,} pairs have no {name} entropy, because a text is too short"


def _written(title: str, table: "DataFrame", path: Path) -> Iterator[str]:
    table.to_csv(path, index=False)
    yield f"{title} ({path})"
    yield table.to_string(index=False, na_rep="-", float_format=lambda value: f"{value:.3f}")


if __name__ == "__main__":
    sys.exit(main())

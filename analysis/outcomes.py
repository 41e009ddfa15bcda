"""Who met whom and who won, what became of the combats, and what the run cost: by part of the time, and in tokens a point of improvement."""

import pandas as pd

from analysis import chosen
from analysis.frames import Frames
from analysis.pieces import Absent
from analysis.run_rows import IDLE
from sparta.arena.preferences import REASONS
from sparta.evaluation.selection import ALL, INITIAL, LAST


def meetings(found: Frames) -> pd.DataFrame:
    """One row a run, model and opponent, both ways round: met, won, lost, undecided, and `share` won of those decided (NaN if none was)."""
    combats = _combats(found)
    plain = {"first": str, "second": str, "winner": object, "run": str}
    flat = combats[list(plain)].astype(plain)
    both = pd.concat(
        [
            flat.rename(columns={"first": "model", "second": "opponent"}),
            flat.rename(columns={"second": "model", "first": "opponent"}),
        ],
        ignore_index=True,
    )
    both["won"] = both.winner == both.model
    both["lost"] = both.winner == both.opponent
    made = both.groupby(["run", "model", "opponent"]).agg(
        met=("won", "size"), won=("won", "sum"), lost=("lost", "sum")
    )
    made = made.reset_index()
    made["undecided"] = made.met - made.won - made.lost
    decided = made.won + made.lost
    made["share"] = (made.won / decided).where(decided > 0)
    models = [model for model in found.models if model in set(made.model)]
    made["model"], made["opponent"] = (pd.Categorical(made[name], models) for name in ("model", "opponent"))
    return made.sort_values(["run", "model", "opponent"], ignore_index=True)


def matrix(frame: pd.DataFrame, value: str = "share") -> pd.DataFrame:
    """A column of `meetings` of one run as a matrix, model by opponent; NaN where two never met."""
    return frame.pivot(index="model", columns="opponent", values=value)


def shares(found: Frames) -> pd.DataFrame:
    """One row a run and iteration: the share of its combats (or prompts) by result, of its responses that were cut, and of its votes that are missing.

    The columns pair, empty, equal, void, tie and margin add up to 1. Raises Absent before the first iteration is merged.
    """
    counted = found.iterations[found.iterations.combats.fillna(0) > 0]
    if counted.empty:
        raise Absent("no iteration has got to its results yet")
    made = counted[["run", "iteration", "unit", "combats"]].reset_index(drop=True)
    whole = counted.combats.to_numpy(dtype=float)
    for reason in REASONS:
        made[reason] = counted[reason].to_numpy(dtype=float) / whole
    keys = ["run", "iteration"]
    plain = {"run": str}
    responses = found.responses.groupby(keys, observed=True).finish_reason.agg(
        lambda ends: (ends == "length").mean()
    )
    votes = found.votes.groupby(keys, observed=True).score.agg(lambda scores: scores.isna().mean())
    rest = pd.DataFrame({"cut": responses, "missing_votes": votes}).reset_index().astype(plain)
    return made.astype(plain).merge(rest, on=keys, how="left")


def time_by_part(found: Frames) -> pd.DataFrame:
    """One row a run and iteration, `all` being the last: GPU-seconds (or task-seconds, as `unit` says) by part, of all parts, and the idle share.

    Raises Absent where no iteration has an account of its time.
    """
    cost = found.cost
    if cost.empty:
        raise Absent("no iteration has an account of its time yet (iterations of version 0.1.0 have none)")
    flat = cost.astype({"run": str, "part": str, "unit": str, "iteration": object})
    total = (
        flat.groupby(["run", "unit", "part"], as_index=False, sort=False)
        .seconds.sum()
        .assign(iteration="all")
    )
    both = pd.concat([flat[["run", "unit", "part", "iteration", "seconds"]], total])
    parts = [part for part in dict.fromkeys(flat.part) if part != IDLE]
    wide = both.pivot_table(
        index=["run", "unit", "iteration"], columns="part", values="seconds", aggfunc="sum", sort=False
    )
    wide = wide.reindex(columns=[*parts, IDLE]).fillna(0.0)
    wide["all parts"] = wide.sum(axis=1)
    wide["idle share"] = (wide[IDLE] / wide["all parts"]).where(wide["all parts"] > 0)
    return wide.rename_axis(columns=None).reset_index()


def improvement(found: Frames) -> pd.DataFrame:
    """One row a run and task: what an improvement cost.

    initial, last, best: scores of the best model of the initial pool, of the last pool, and of all checkpoints (`best` is `last` where not all were scored); on the
    test split where it was scored, else on validation (`split`). points: best minus initial in hundredths of the metric's best value. tokens: generated, read and
    trained on, of all iterations so far. tokens_a_point: NaN without an improvement. Raises Absent where nothing was scored.
    """
    choices = chosen.counted(found)
    own = choices.task.astype(str) == choices.chosen_on.astype(str)
    # Another task's validation says nothing about points on this one.
    choices = choices[choices.selects.astype(bool) & (own | choices["mean"].notna())]
    if choices.empty:
        raise Absent("no checkpoint was scored yet, so there is no improvement to set against the cost")
    spent = (
        found.iterations.groupby("run", observed=True)[["generated", "read", "trained"]]
        .sum(min_count=1)
        .sum(axis=1, min_count=1)
    )
    rows = []
    for (run, task), group in choices.groupby(["run", "task"], observed=True):
        by_kind = group.set_index(group.what.astype(str))
        tested = bool(by_kind["mean"].notna().all())
        value = by_kind["mean" if tested else "validation"].astype(float)
        initial, last = value.get(INITIAL), value.get(LAST)
        best = value.get(ALL, last)
        points = None if initial is None or best is None else 100 * (best - initial) / by_kind.top.iloc[0]
        tokens = spent.get(run)
        a_point = None
        if points is not None and points > 0 and not pd.isna(tokens):
            a_point = float(tokens) / points
        rows.append(
            (
                str(run),
                str(task),
                "test" if tested else "validation",
                initial,
                last,
                best,
                points,
                tokens,
                a_point,
            )
        )
    names = ["run", "task", "split", "initial", "last", "best", "points", "tokens", "tokens_a_point"]
    return pd.DataFrame(rows, columns=names).astype(
        {**dict.fromkeys(names[3:7], "float64"), "tokens": "Int64", "tokens_a_point": "float64"}
    )


def loss_curves(found: Frames) -> pd.DataFrame:
    """One row a run, model, iteration and weight update: loss, reward_margin, reward_accuracy, and `position`: the place on an axis of iterations, where the
    training of iteration t goes from t - 1 to t, its end (that of the initial pool from -1 to 0): t - 1 plus the share of its updates done.

    Raises Absent where no training left a log with losses.
    """
    updates = found.updates[found.updates.loss.notna()]
    if updates.empty:
        raise Absent("no training has left a log with losses")
    last = updates.groupby(["run", "iteration", "model"], observed=True)["update"].transform("max")
    columns = ["run", "model", "iteration", "update", "loss", "reward_margin", "reward_accuracy"]
    return (
        updates[columns]
        .assign(position=updates.iteration - 1 + updates["update"] / last)
        .reset_index(drop=True)
    )


def _combats(found: Frames) -> pd.DataFrame:
    if found.combats.empty:
        raise Absent("there are no combats yet (methods that align one model have none)")
    return found.combats

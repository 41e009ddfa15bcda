"""Case studies: single combats that say something about a run, with both responses and every judge's vote.

Kinds: the pairs with the largest and with the smallest margin, the combats that judges disagree about most, and the upsets (pairs whose winner had the lower
reputation). The texts are those of models, unchanged: `shown` makes one safe to show.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from analysis.frames import Frames
from analysis.judging import has_weights, judging_weights
from sparta.errors import printable

KINDS: Final = ("largest margin", "smallest margin", "most disputed", "upset")
PER_KIND = 3
"""Cases of each kind in each iteration."""
TEXT_LIMIT, RAW_LIMIT = 4000, 400
"""Characters of a response or a prompt, and of what a judge wrote, that are shown."""


@dataclass(frozen=True)
class CaseVote:
    """One judge's votes on both responses. scores: None where missing. weight: the judge's share of the jury, 0 to 1; None where it did not count.

    raw: what the judge wrote about each.
    """

    judge: str
    scores: tuple[float | None, float | None]
    weight: float | None
    raw: tuple[str, str]


@dataclass(frozen=True)
class CaseSide:
    """One contestant. score: aggregated, None without a jury. before, after: its reputation."""

    model: str
    text: str
    thinking: str
    finish: str
    score: float | None
    before: float
    after: float


@dataclass(frozen=True)
class Case:
    """One combat. kinds: why it is shown. winner: a model, or None. spread: the standard deviation of the judges' own margins, in score points."""

    kinds: tuple[str, ...]
    run: str
    iteration: int
    combat_id: str
    prompt: str
    sides: tuple[CaseSide, CaseSide]
    winner: str | None
    reason: str
    margin: float | None
    spread: float | None
    votes: tuple[CaseVote, ...]


def shown(text: str, limit: int = TEXT_LIMIT) -> str:
    """`text` safe to show: control and bidirectional characters spelled out, and cut after `limit` characters, with a note of how much is left out."""
    safe = printable(text[:limit])
    more = len(text) - limit
    return f"{safe} [… {more:,} more characters]" if more > 0 else safe


def case_studies(found: Frames, per_kind: int = PER_KIND, label: str | None = None) -> list[Case]:
    """The cases of every iteration of one run, in the order of iterations and kinds. A combat of several kinds is one case.

    An iteration that is being merged is left out: its judges' weights are not known yet.

    per_kind: how many of each kind in an iteration. label: which run; None: the only one.
    """
    run = found.run(label)
    [source] = [each for each in found.sources if each.run is run]
    name = source.label
    combats = _of(found.combats, name)
    votes = _of(found.votes, name)
    cases = []
    for t, here in combats.groupby("iteration", observed=True, sort=True):
        if not has_weights(found, source, int(t)):
            continue
        judged = votes[votes.iteration == t]
        spreads = _spreads(here, judged)
        chosen = _chosen(here, spreads, per_kind)
        here = here.sort_values("place")
        rows_of_weights = judging_weights(found, source, int(t), here).tolist()
        weights = {
            combat_id: dict(zip(run.models, row, strict=True))
            for combat_id, row in zip(here.combat_id, rows_of_weights, strict=True)
        }
        texts = found.responses[(found.responses.run == name) & (found.responses.iteration == t)]
        texts = texts[texts.combat_id.isin(chosen)].set_index(["combat_id", "model"])
        by_combat = dict(iter(judged[judged.combat_id.isin(chosen)].groupby("combat_id", observed=True)))
        rows = {row.combat_id: row for row in here.itertuples()}
        for combat_id, kinds in chosen.items():
            cases.append(
                _case(
                    rows[combat_id],
                    name,
                    kinds,
                    spreads.get(combat_id),
                    texts,
                    by_combat.get(combat_id),
                    weights,
                )
            )
    return cases


def _of(frame: pd.DataFrame, run: str) -> pd.DataFrame:
    return frame[frame.run == run]


def _spreads(combats: pd.DataFrame, votes: pd.DataFrame) -> dict[str, float]:
    """By combat, the standard deviation of the judges' own margins, where two judges or more scored both."""
    both = votes.dropna(subset=["score"]).merge(combats[["combat_id", "first"]], on="combat_id")
    signs = (both.contestant.astype(str) == both["first"].astype(str)).map({True: 1.0, False: -1.0})
    signed = both.assign(signed=both.score * signs)
    gaps = signed.groupby(["combat_id", "judge"], observed=True).signed.agg(["sum", "size"])
    spread = gaps[gaps["size"] == 2].groupby("combat_id", observed=True)["sum"].std(ddof=1)
    return {str(combat): float(value) for combat, value in spread.dropna().items()}


def _chosen(combats: pd.DataFrame, spreads: Mapping[str, float], per_kind: int) -> dict[str, tuple[str, ...]]:
    """The combats to show, with their kinds. Among equal ones the earlier counts."""
    pairs = combats[combats.winner.notna()]
    margins = pairs.margin.abs()
    lead = (pairs.before_second - pairs.before_first).where(
        pairs.winner.astype(str) == pairs["first"].astype(str), pairs.before_first - pairs.before_second
    )
    disputed = pd.Series(combats.combat_id.map(spreads).to_numpy(dtype=float), index=combats.index)
    ranked = (
        margins.sort_values(ascending=False, kind="stable"),
        margins.sort_values(kind="stable"),
        disputed[disputed > 0].sort_values(ascending=False, kind="stable"),
        lead[lead > 0].sort_values(ascending=False, kind="stable"),
    )
    chosen: dict[str, tuple[str, ...]] = {}
    for kind, order in zip(KINDS, ranked, strict=True):
        for combat_id in combats.loc[order.index[:per_kind]].combat_id:
            chosen[combat_id] = (*chosen.get(combat_id, ()), kind)
    return chosen


def _case(
    row: Any,
    run: str,
    kinds: tuple[str, ...],
    spread: float | None,
    texts: pd.DataFrame,
    votes: pd.DataFrame | None,
    weights: Mapping[str, Mapping[str, float]],
) -> Case:
    return Case(
        kinds=kinds,
        run=run,
        iteration=int(row.iteration),
        combat_id=str(row.combat_id),
        prompt=str(row.prompt),
        sides=(
            _side(row.combat_id, row.first, row.score_first, row.before_first, row.after_first, texts),
            _side(row.combat_id, row.second, row.score_second, row.before_second, row.after_second, texts),
        ),
        winner=None if pd.isna(row.winner) else str(row.winner),
        reason=str(row.reason),
        margin=_number(row.margin),
        spread=spread,
        votes=tuple(_votes(row, votes, weights[row.combat_id])) if votes is not None else (),
    )


def _side(
    combat_id: str, model: str, score: float, before: float, after: float, texts: pd.DataFrame
) -> CaseSide:
    said = texts.loc[(combat_id, model)]
    return CaseSide(
        str(model),
        str(said.text),
        str(said.thinking),
        str(said.finish_reason),
        _number(score),
        float(before),
        float(after),
    )


def _votes(row: Any, votes: pd.DataFrame, weights: Mapping[str, float]) -> Iterator[CaseVote]:
    """Every judge's votes, in the order of the pool, with its share of the jury."""
    given = {(str(vote.judge), str(vote.contestant)): vote for vote in votes.itertuples()}
    judges = [judge for judge in weights if judge not in (row.first, row.second)]
    scores = {
        judge: tuple(
            _number(given[judge, str(model)].score) if (judge, str(model)) in given else None
            for model in (row.first, row.second)
        )
        for judge in judges
    }
    jury = [judge for judge in judges if None not in scores[judge]]
    total = math.fsum(weights[judge] for judge in jury)
    for judge in judges:
        share = (weights[judge] / total if total > 0 else 1 / len(jury)) if judge in jury else None
        raw = [
            str(given[judge, str(model)].raw) if (judge, str(model)) in given else ""
            for model in (row.first, row.second)
        ]
        one, two = scores[judge]
        yield CaseVote(judge, (one, two), share, (raw[0], raw[1]))


def _number(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)

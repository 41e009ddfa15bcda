"""From a study file to its cells: their names, their recipes, what each needs of another one. Pure, except that recipes are read."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from itertools import product
from pathlib import Path
from typing import Any

from sparta.errors import SpartaError
from sparta.names import hint
from sparta.recipes.load import assembled
from sparta.recipes.schema import Recipe
from sparta.studies.initial_pool import InitialPool, named_as_in, pool_of, pool_recipe, shared_scores
from sparta.studies.layout import POOL, SEED, StudyDir, is_pool
from sparta.studies.study_file import Changes, Scalar, Study

CELL = "cell:"
"""Begins a reference to another cell, by the levels in which it differs: cell:method=sparta."""
_LABEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+]*")
LONGEST_NAME = 120


@dataclass(frozen=True)
class Cell:
    """One run of a study. levels: label by axis. pool: of its initial pool's own run; None if it shares none. needs: cells that must be done first."""

    name: str
    levels: Mapping[str, str]
    recipe: Recipe
    pool: str | None = None
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Grid:
    """The cells of a study, in the order of its axes, and the runs of their initial pools. left_out: how many cells `without` removed.

    source: the study file, where relative paths start.
    """

    study: Study
    source: Path
    cells: tuple[Cell, ...]
    pools: tuple[InitialPool, ...]
    left_out: int

    def with_recipes(self, changed: Callable[[Recipe], Recipe]) -> "Grid":
        """The same grid with the recipes of all runs changed in how they are carried out."""
        return replace(
            self,
            cells=tuple(replace(cell, recipe=changed(cell.recipe)) for cell in self.cells),
            pools=tuple(replace(pool, recipe=changed(pool.recipe)) for pool in self.pools),
        )

    @property
    def reference(self) -> tuple[str, str]:
        """The axis whose levels are compared, and the label of the level that the others are compared with."""
        if self.study.compare:
            [(axis, level)] = self.study.compare.items()
            return axis, label_of(axis, level)
        axis = next((axis for axis in self.study.axes if axis != SEED), next(iter(self.study.axes)))
        return axis, next(iter(_levels(axis, self.study)))


def expanded(study: Study, path: Path, place: StudyDir) -> Grid:
    """The grid of `study`, read from `path`, with its folder at `place`.

    Raises SpartaError for an unknown key, a level or a cell that is there twice, a name that is no file name, a reference to a missing cell,
    and cells that wait for each other.
    """
    axes = {axis: _levels(axis, study) for axis in study.axes}
    _require_known(study, axes)
    chosen = list(product(*(levels for levels in axes.values())))
    all_levels = [dict(zip(axes, labels, strict=True)) for labels in chosen]
    kept = [levels for levels in all_levels if not _left_out(study, levels)]
    if not kept:
        raise SpartaError(f"study {path} has no cell: without leaves all {len(all_levels)} of them out")
    names = [_name(levels) for levels in kept]
    _require_unique(path, names)
    cells, pools, known = [], dict[str, InitialPool](), dict[str, InitialPool]()
    for name, levels in zip(names, kept, strict=True):
        recipe, needs = _recipe(study, path, place, name, levels, dict(zip(names, kept, strict=True)))
        pool = None
        if "answers" in study.share or shared_scores(recipe) or recipe.pool.experts:
            plain = pool_of(recipe)
            found = known.get(plain.name) or known.setdefault(plain.name, named_as_in(place, plain))
            pool = found.name
            pools.setdefault(found.name, found)
            recipe = pool_recipe(recipe, found, place)
        cells.append(Cell(name, levels, recipe, pool, needs))
    _require_different(path, cells)
    _require_order(path, cells)
    return Grid(study, path, tuple(cells), tuple(pools.values()), len(all_levels) - len(kept))


def label_of(axis: str, level: Scalar) -> str:
    """The label of a value: of a word the word itself, otherwise with the last part of its key, such as seed0, alpha0.6, frozen_true."""
    last = axis.rpartition(".")[2]
    if isinstance(level, bool) or level is None:
        return f"{last}_{str(level).lower() if level is not None else 'null'}"
    return level if isinstance(level, str) else f"{last}{level}"


def _levels(axis: str, study: Study) -> dict[str, Changes]:
    """The levels of an axis by label, with the keys that each sets. Raises SpartaError for a level that is there twice or is no file name."""
    given = study.axes[axis]
    if isinstance(given, dict):
        found = dict(given)
    else:
        labels = [label_of(axis, level) for level in given]
        if twice := sorted(label for label, count in Counter(labels).items() if count > 1):
            raise SpartaError(
                f"study {study.name}: the axis {axis} has the level {twice[0]} twice: name every level once"
            )
        found = {label: {axis: level} for label, level in zip(labels, given, strict=True)}
    for label in found:
        if _LABEL.fullmatch(label) is None:
            raise SpartaError(
                f"study {study.name}: the level {label!r} of the axis {axis} cannot be part of a file name: use letters, digits, '.', '_' and '+', "
                "or give it a name (a mapping of names to keys)"
            )
    return found


def _require_known(study: Study, axes: Mapping[str, Mapping[str, Changes]]) -> None:
    """Raises SpartaError where `without` or `compare` names an axis or a level that is not there."""
    if len(study.compare) > 1:
        raise SpartaError(f"study {study.name}: compare names {len(study.compare)} axes: name one")
    named_levels: list[tuple[str, Mapping[str, Scalar | tuple[Scalar, ...]]]] = [
        *(("without", entry) for entry in study.without),
        ("compare", study.compare),
    ]
    for what, named in named_levels:
        for axis, levels in named.items():
            if axis not in axes:
                raise SpartaError(
                    f"study {study.name}: {what} names the axis {axis}, which is not there; {hint(axis, axes, 'axes')}"
                )
            for level in levels if isinstance(levels, tuple) else (levels,):
                label = _known_label(axis, level, axes[axis])
                if label is None:
                    raise SpartaError(
                        f"study {study.name}: {what} names the level {level} of {axis}, which is not there; "
                        f"{hint(str(level), axes[axis], 'levels')}"
                    )


def _known_label(axis: str, level: Scalar, known: Mapping[str, Any]) -> str | None:
    """The label of `level`, given as a value or as a label; None if the axis has no such level."""
    return next((label for label in (label_of(axis, level), str(level)) if label in known), None)


def _left_out(study: Study, levels: Mapping[str, str]) -> bool:
    def fits(entry: Mapping[str, Scalar | tuple[Scalar, ...]]) -> bool:
        return all(
            levels[axis]
            in {
                label
                for level in (given if isinstance(given, tuple) else (given,))
                for label in (label_of(axis, level), str(level))
            }
            for axis, given in entry.items()
        )

    return any(map(fits, study.without))


def _name(levels: Mapping[str, str]) -> str:
    return "-".join(levels.values())


def _require_unique(path: Path, names: Sequence[str]) -> None:
    """Raises SpartaError where two cells would have one folder, also on a disk that does not tell capital letters apart."""
    counted = Counter(name.lower() for name in names)
    for name in names:
        if counted[name.lower()] > 1:
            raise SpartaError(
                f"study {path}: two cells would be called {name}: give levels names that differ in more than capital letters"
            )
        if is_pool(name):
            raise SpartaError(
                f"study {path}: the name of the cell {name} begins with {POOL}, which names runs of initial pools: rename its first level"
            )
        if len(name) > LONGEST_NAME:
            raise SpartaError(
                f"study {path}: the name of the cell {name} has more than {LONGEST_NAME} characters: give levels shorter names"
            )


def _require_different(path: Path, cells: Sequence[Cell]) -> None:
    """Raises SpartaError where two cells are the same run."""
    seen: dict[str, str] = {}
    for cell in cells:
        same = cell.recipe.model_copy(update={"name": "cell"}).model_dump_json()
        if same in seen:
            raise SpartaError(
                f"study {path}: the cells {seen[same]} and {cell.name} have the same settings: remove one, or let their levels set different keys"
            )
        seen[same] = cell.name


def _require_order(path: Path, cells: Sequence[Cell]) -> None:
    """Raises SpartaError where cells wait for each other, so that none could ever begin."""
    try:
        TopologicalSorter({cell.name: cell.needs for cell in cells}).prepare()
    except CycleError as error:
        # Each is needed by the next one.
        shown = " needs ".join(reversed(error.args[1]))
        raise SpartaError(
            f"study {path}: cells wait for each other ({shown}): let one of them refer to another cell, or to none"
        ) from None


def _recipe(
    study: Study,
    path: Path,
    place: StudyDir,
    name: str,
    levels: Mapping[str, str],
    kept: Mapping[str, Mapping[str, str]],
) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe of a cell, and the cells that it refers to. kept: the levels of every cell, by name."""
    changes = [study.set, *(_levels(axis, study)[label] for axis, label in levels.items())]
    source = study.recipe
    needs: list[str] = []
    resolved: list[dict[str, Any]] = []
    for change in changes:
        source = str(change.get("recipe", source))
        keys = {key: value for key, value in change.items() if key != "recipe"}
        resolved.append(_with_cells(keys, study, place, name, levels, kept, needs))
    recipe = assembled(source, resolved, path, f"study {path}, cell {name}")
    return recipe.model_copy(update={"name": name}), tuple(dict.fromkeys(needs))


def _with_cells(
    value: Any,
    study: Study,
    place: StudyDir,
    name: str,
    levels: Mapping[str, str],
    kept: Mapping[str, Mapping[str, str]],
    needs: list[str],
) -> Any:
    """`value` with references to cells replaced by their state directories; `needs` receives their names."""
    if isinstance(value, dict):
        return {
            key: _with_cells(inner, study, place, name, levels, kept, needs) for key, inner in value.items()
        }
    if not isinstance(value, str) or not value.startswith(CELL):
        return value
    other = dict(levels)
    for axis, label in _parts(value, study, name):
        other[axis] = label
    target = next((found for found, its in kept.items() if its == other), None)
    if target is None:
        raise SpartaError(
            f"study {study.name}: the cell {name} needs the cell {_name(other)} ({value}), which is left out: keep it, or leave {name} out too"
        )
    if target == name:
        raise SpartaError(
            f"study {study.name}: the cell {name} needs itself ({value}): leave it out, or name another level"
        )
    needs.append(target)
    return str(place.cell(target).root)


def _parts(value: str, study: Study, name: str) -> Iterator[tuple[str, str]]:
    """The axes and labels of a reference."""
    for part in value.removeprefix(CELL).split(","):
        axis, equals, level = part.strip().partition("=")
        known = _levels(axis, study) if axis in study.axes else {}
        label = next((label for label in (level, label_of(axis, level)) if label in known), None)
        if not equals or label is None:
            raise SpartaError(
                f"study {study.name}: the cell {name} refers to {value!r}, which names no cell: write cell:AXIS=LEVEL, with the axes "
                f"{', '.join(study.axes)}"
            )
        yield axis, label

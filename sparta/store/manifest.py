"""The commit of an iteration: MANIFEST.json, written last, lists the contents of the iteration and names its parent.

An iteration without a manifest is not committed. Equal content gives an equal manifest, byte for byte: no times, no hosts, and for folders of
shards the set of rows instead of the files. Measurements are not covered: stats.json, the adapters' log.jsonl and report.json.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import msgspec

from sparta.errors import SpartaError
from sparta.names import quoted
from sparta.store import files as whole
from sparta.store.disk import opened, present
from sparta.store.layout import IterationDir, StateDir
from sparta.store.proved import Proved
from sparta.store.pruned import read_pruned
from sparta.store.records import SCHEMA_VERSION, Response, Row, Trained, TrainedExpert, Vote
from sparta.store.shards import RowsEntry, ShardReader, rows_digest, shard_files

ROW_TYPES: Mapping[str, type[Row]] = {"responses": Response, "votes": Vote, "training": Trained}
INIT_POOL_ROW_TYPES: Mapping[str, type[Row]] = {**ROW_TYPES, "training": TrainedExpert}
"""The row types of folders of shards, and those of iteration 0. A method may add its own, see `verify`."""


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file: size in bytes and SHA-256 of its content."""

    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """MANIFEST.json. parent: SHA-256 of the parent's MANIFEST.json, for iteration 0 the recipe's hash. Names are relative to the iteration."""

    schema_version: int
    iteration: int
    parent: str
    files: dict[str, FileEntry]
    rows: dict[str, RowsEntry]


def commit(
    iteration: IterationDir, parent: str, files: Sequence[Path], rows: Mapping[str, type[Row] | RowsEntry]
) -> Manifest:
    """Commit `iteration` by writing its manifest. Everything it covers is flushed to the disk first.

    parent: see `parent_hash`. files: whole files of the iteration; those below adapters/ are always covered and need not be given.
    rows: folders of shards with the type of their rows, or with the entry of a ShardReader that has just read them.

    Committing the same content again changes nothing. Raises SpartaError where a file is missing, where shards cannot be read, and where the
    iteration is already committed with other content.
    """
    names = sorted(
        {path.relative_to(iteration.root).as_posix() for path in files} | set(_adapter_files(iteration))
    )
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        iteration=iteration.t,
        parent=parent,
        files={name: _file_entry(iteration.root / name) for name in names},
        rows={
            name: of if isinstance(of, RowsEntry) else rows_digest(ShardReader(iteration.root / name, of))
            for name, of in sorted(rows.items())
        },
    )
    with whole.os_errors_named(iteration.root):
        for folder in {(iteration.root / name).parent for name in names}:
            whole.sync(folder)
    if present(iteration.manifest) and read_manifest(iteration) != manifest:
        raise SpartaError(f"{iteration.root} is committed already, with other content: {_remedy(iteration)}.")
    whole.write_json(iteration.manifest, manifest)
    return manifest


def read_manifest(iteration: IterationDir) -> Manifest:
    """The manifest of a committed iteration. Raises SpartaError where it is missing, malformed or of another schema version."""
    manifest = whole.read_json(iteration.manifest, Manifest)
    if manifest.schema_version != SCHEMA_VERSION:
        raise SpartaError(
            f"{iteration.manifest} has schema version {manifest.schema_version}, this program knows {SCHEMA_VERSION}: "
            "use the version of the program that wrote it."
        )
    return manifest


def committed_digest(iteration: IterationDir, folder: Path) -> str:
    """The digest of an adapter's folder in `iteration`, see `files.sha256_tree`, as it was committed: nothing but the manifest is read."""
    inside = f"{folder.relative_to(iteration.root).as_posix()}/"
    committed = read_manifest(iteration).files
    return whole.tree_digest(
        {
            name.removeprefix(inside): entry.sha256
            for name, entry in committed.items()
            if name.startswith(inside)
        }
    )


def parent_hash(state: StateDir, t: int, recipe_hash: str) -> str:
    """The parent in the manifest of iteration `t`: the hash of the previous manifest; for iteration 0, `recipe_hash`."""
    return recipe_hash if t == 0 else whole.sha256_file(state.iteration(t - 1).manifest)


def verify(
    state: StateDir,
    recipe_hash: str,
    upto: int | None = None,
    row_types: Mapping[str, type[Row]] = ROW_TYPES,
    proved: Proved | None = None,
) -> None:
    """Check every committed iteration, or those up to `upto`, see `problems_of`.

    Every iteration before the last one that has begun must have its manifest. A run without commits is valid.

    Raises SpartaError naming the first file that is missing or was changed, and the remedy.
    """
    last = last_to_verify(state) if upto is None else upto
    for t in range(last + 1):
        for problem in problems_of(state, t, recipe_hash, row_types, proved):
            raise problem


def problems_of(
    state: StateDir,
    t: int,
    recipe_hash: str,
    row_types: Mapping[str, type[Row]] = ROW_TYPES,
    proved: Proved | None = None,
) -> Iterator[SpartaError]:
    """What is wrong with the committed iteration t, one error with its remedy for each: its place in the chain of manifests, every file, every
    set of rows.

    recipe_hash: parent of iteration 0, see `parent_hash`. row_types: the row type of each folder of shards, by name, from iteration 1 on; a method
    may have its own. proved: files that need not be read again if they have not been touched since; what is right is added to it.

    Adapters that were removed on purpose (see sparta/store/pruned.py) may be missing.
    """
    iteration = state.iteration(t)
    try:
        manifest = _manifest_in_chain(state, t, recipe_hash)
    except SpartaError as error:
        yield error
        return
    types = row_types if t else INIT_POOL_ROW_TYPES
    removed = read_pruned(state).files
    for name, entry in manifest.files.items():
        if removed.get(f"{iteration.root.name}/{name}") == entry.sha256 and not present(
            iteration.root / name
        ):
            continue
        yield from _problem(proved, iteration, name, entry, partial(_verify_file, iteration, name, entry))
    for name in _adapter_files(iteration):
        if name not in manifest.files:
            yield _refusal(iteration, f"{iteration.root / name} was added after the commit")
    for name, rows in manifest.rows.items():
        yield from _problem(
            proved, iteration, name, rows, partial(_verify_rows, iteration, name, rows, types)
        )


def _problem(
    proved: Proved | None,
    iteration: IterationDir,
    name: str,
    entry: FileEntry | RowsEntry,
    check: Callable[[], None],
) -> Iterator[SpartaError]:
    """The error of `check`, if it raises one. It is not run if `proved` says that nothing has changed since it was."""
    path = iteration.root / name
    try:
        _require_inside(iteration, name)
        if proved is None:
            check()
        elif not proved.holds(path, entry):
            with proved.proving(path, entry):
                check()
    except SpartaError as error:
        yield error


def _manifest_in_chain(state: StateDir, t: int, recipe_hash: str) -> Manifest:
    """The manifest of iteration t. Raises SpartaError where it is missing, or does not follow that of the iteration before."""
    iteration = state.iteration(t)
    if not present(iteration.manifest):
        raise _refusal(iteration, f"{iteration.manifest} is missing")
    manifest = read_manifest(iteration)
    if manifest.iteration != t:
        raise _refusal(
            iteration, f"{iteration.manifest} is the manifest of iteration {manifest.iteration}, not {t}"
        )
    if t and not present(state.iteration(t - 1).manifest):
        raise _refusal(
            iteration, f"{state.iteration(t - 1).manifest}, which {iteration.manifest} follows, is missing"
        )
    if manifest.parent != parent_hash(state, t, recipe_hash):
        raise _refusal(iteration, _broken_chain(state, t))
    return manifest


def last_to_verify(state: StateDir) -> int:
    """The last iteration that is committed, or was; -1 where none is."""
    before_the_last = max(state.iterations(), default=0) - 1
    committed = state.last_committed()
    return max(before_the_last, -1 if committed is None else committed)


def _require_inside(iteration: IterationDir, name: str) -> None:
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise _refusal(iteration, f"{iteration.manifest} names {name!r}, which is outside of the iteration")


def _verify_file(iteration: IterationDir, name: str, entry: FileEntry) -> None:
    path = iteration.root / name
    if not present(path):
        raise _refusal(iteration, f"{path} is missing")
    with whole.os_errors_named(path):
        stat = path.stat()
    if stat.st_size != entry.bytes or whole.sha256_file(path) != entry.sha256:
        # A copy onto it would be a copy onto all of them.
        shared = " (it is one file with those of other runs, by hard links: remove it before you restore it)"
        raise _refusal(iteration, f"{path} was changed after the commit{shared * (stat.st_nlink > 1)}")


def _verify_rows(
    iteration: IterationDir, name: str, expected: RowsEntry, types: Mapping[str, type[Row]]
) -> None:
    of = types.get(name)
    if of is None:
        raise _refusal(
            iteration, f"{iteration.manifest} names rows {name!r}, which this version does not know"
        )
    folder = iteration.root / name
    try:
        found = rows_digest(ShardReader(folder, of))
    except SpartaError as error:
        # Drop the reader's advice to delete a line: it applies only to iterations that are not committed.
        what = str(error).partition(": delete ")[0]
        raise _refusal(iteration, f"{what}{_touched_since(iteration, folder)}") from error
    if found != expected:
        count = (
            "" if found.count == expected.count else f" ({found.count} rows, {expected.count} were committed)"
        )
        raise _refusal(
            iteration,
            f"the rows of {folder} were changed after the commit{count}{_touched_since(iteration, folder)}",
        )


def _touched_since(iteration: IterationDir, folder: Path) -> str:
    """A hint at shard files that are newer than the manifest, most likely because somebody edited them."""
    with whole.os_errors_named(folder):
        committed = iteration.manifest.stat().st_mtime_ns
        names = [str(path) for path in shard_files(folder) if path.stat().st_mtime_ns > committed]
    return f"; most likely in {', '.join(names[:3])}, modified since" if names else ""


def _broken_chain(state: StateDir, t: int) -> str:
    manifest = state.iteration(t).manifest
    if t == 0:
        return f"{manifest} belongs to another recipe than {state.recipe_yaml}, or one of the two was changed"
    return f"{manifest} does not follow {state.iteration(t - 1).manifest}: one of the two was changed or is of another run"


def _refusal(iteration: IterationDir, what: str) -> SpartaError:
    return SpartaError(f"{what[0].upper()}{what[1:]}: {_remedy(iteration)}.")


def _remedy(iteration: IterationDir) -> str:
    if iteration.t == 0:
        return "restore it from a copy, or start a new run with another --state"
    before = StateDir(iteration.root.parent).iteration(iteration.t - 1).root
    return f"restore it from a copy, or continue from the iteration before with {quoted('--resume', before)}"


def _file_entry(path: Path) -> FileEntry:
    """The entry of a file, which is flushed to the disk first: libraries such as safetensors write without syncing."""
    with whole.os_errors_named(path), opened(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
        whole.sync(path)
    return FileEntry(size, digest)


def _adapter_files(iteration: IterationDir) -> Iterator[str]:
    if not iteration.adapters.is_dir():
        return iter(())
    return (f"adapters/{name}" for name in whole.tree(iteration.adapters))

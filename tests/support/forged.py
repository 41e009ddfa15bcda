"""A state whose files were changed by somebody who also made all manifests fit again."""

from collections.abc import Mapping

import msgspec

from sparta.store import files
from sparta.store.layout import StateDir
from sparta.store.manifest import FileEntry, parent_hash, read_manifest
from sparta.store.records import Row
from sparta.store.run import Run
from sparta.store.shards import ShardReader, rows_digest


def reseal(state: StateDir, row_types: Mapping[str, type[Row]]) -> None:
    """Write every manifest anew, for the files and rows that are there."""
    for t in state.committed():
        iteration = state.iteration(t)
        manifest = read_manifest(iteration)
        entries = {
            name: FileEntry((iteration.root / name).stat().st_size, files.sha256_file(iteration.root / name))
            for name in manifest.files
        }
        rows = {
            name: rows_digest(ShardReader(iteration.root / name, row_types[name])) for name in manifest.rows
        }
        made = msgspec.structs.replace(
            manifest, files=entries, rows=rows, parent=parent_hash(state, t, Run.open(state).info.genesis)
        )
        files.write_json(iteration.manifest, made)

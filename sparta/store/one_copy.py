"""Equal files on disk once: hard links to one copy in a library, named by the SHA-256 of its content.

Only for files that never change, such as adapters of committed iterations. Where the disk has no hard links, files stay copies.
"""

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from sparta.store import files
from sparta.store.disk import os_errors_named, present
from sparta.store.guard import require_ours
from sparta.store.temporaries import temporary_beside

_NO_LINKS = (errno.EPERM, errno.EXDEV, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS)


def share(library: Path, paths: Iterable[Path]) -> int:
    """Make each of `paths` a link to its copy in the folder `library`, which receives contents that it lacks. Returns the bytes saved.

    A copy in the library that was changed since is not used. Readers of a path see the same content at every moment.
    """
    with os_errors_named(library):
        files.make_folder(library)
    return sum(_share(library, path) for path in paths)


def _share(library: Path, path: Path) -> int:
    digest = files.sha256_file(path)
    kept = library / digest
    with os_errors_named(path):
        if not present(kept):
            _link(path, kept)
            return 0
        if os.path.samefile(kept, path) or files.sha256_file(kept) != digest:
            return 0
        temporary = temporary_beside(path)
        if not _link(kept, temporary):
            return 0
        try:
            require_ours(path)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        files.sync(path.parent)
        return path.stat().st_size


def _link(path: Path, new: Path) -> bool:
    """Make `new` a link to `path`. False where the disk has no hard links, or has `new` already."""
    try:
        os.link(path, new)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return False
    return True

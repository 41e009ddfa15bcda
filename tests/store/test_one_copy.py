"""Equal files are on disk once, and a changed copy is never spread."""

import errno
import os
from pathlib import Path

import pytest

from sparta.errors import SpartaError
from sparta.store.one_copy import share


def written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_equal_files_become_one(tmp_path: Path) -> None:
    library = tmp_path / "shared"
    first, second = written(tmp_path / "a" / "w", b"same"), written(tmp_path / "b" / "w", b"same")
    other = written(tmp_path / "b" / "v", b"other")
    assert share(library, [first]) == 0
    assert share(library, [second, other]) == 4
    assert os.path.samefile(first, second)
    assert not os.path.samefile(first, other)
    assert (second.read_bytes(), other.read_bytes()) == (b"same", b"other")
    assert share(library, [first, second, other]) == 0
    first.unlink()
    assert second.read_bytes() == b"same"
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["v", "w"]


def test_a_copy_that_was_changed_is_not_used(tmp_path: Path) -> None:
    library = tmp_path / "shared"
    first, second = written(tmp_path / "a" / "w", b"same"), written(tmp_path / "b" / "w", b"same")
    share(library, [first])
    [kept] = library.iterdir()
    kept.write_bytes(b"edited")
    assert share(library, [second]) == 0
    assert second.read_bytes() == b"same"


def test_without_hard_links_files_stay_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refused)
    path = written(tmp_path / "a" / "w", b"same")
    assert share(tmp_path / "shared", [path]) == 0
    assert path.read_bytes() == b"same"


def test_a_full_disk_is_reported_and_the_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    path = written(tmp_path / "a" / "w", b"same")
    monkeypatch.setattr(os, "link", full)
    with pytest.raises(SpartaError, match="is full: free space"):
        share(tmp_path / "shared", [path])
    assert path.read_bytes() == b"same"

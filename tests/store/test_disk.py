"""Errors of the file system become messages: what, where, what to do."""

import errno
import os
from pathlib import Path

import pytest

from sparta.errors import SpartaError
from sparta.store.disk import explain, opened, os_errors_in_words, present
from sparta.store.files import read_json, read_measured
from sparta.store.shards import shard_files
from sparta.store.temporaries import temporary_beside


def error(number: int, *names: str) -> OSError:
    first, *rest = names or (None,)
    return OSError(number, os.strerror(number), first, None, *rest)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "is full: free space"),
        (errno.EDQUOT, "is full: free space"),
        (errno.EACCES, "correct its owner or permissions"),
        (errno.EROFS, "may not be read or written"),
        (errno.ENOENT, "is missing: restore it"),
        (errno.ESTALE, "network disk that holds .* did not answer .*run the same command again"),
        (errno.ETIMEDOUT, "network disk"),
        (errno.EIO, r"could not be read or written \(Input/output error\): see to the disk"),
    ],
)
def test_every_error_of_a_disk_has_its_remedy(number: int, words: str) -> None:
    with pytest.raises(SpartaError, match=words):
        raise explain(error(number), Path("/state/run.json"))


def test_an_unhandled_error_names_its_own_path_or_else_the_folder(tmp_path: Path) -> None:
    with (
        pytest.raises(SpartaError, match=r"/state/iter_01/plan\.jsonl could not"),
        os_errors_in_words(tmp_path),
    ):
        raise error(errno.EIO, "/state/iter_01/plan.jsonl")
    with pytest.raises(SpartaError, match=f"{tmp_path} could not"), os_errors_in_words(tmp_path):
        raise error(errno.EIO)


def test_for_a_temporary_file_the_target_is_named(tmp_path: Path) -> None:
    temporary = temporary_beside(tmp_path / "plan.jsonl")
    with pytest.raises(SpartaError) as caught, os_errors_in_words(tmp_path):
        raise error(errno.EIO, str(temporary), str(tmp_path / "plan.jsonl"))
    assert str(caught.value).startswith(f"{tmp_path / 'plan.jsonl'} could not")
    with pytest.raises(SpartaError) as caught, os_errors_in_words(tmp_path):
        raise error(errno.EIO, str(temporary))
    assert str(caught.value).startswith(f"{tmp_path} could not")


def test_a_connection_error_is_not_a_disk_error(tmp_path: Path) -> None:
    with pytest.raises(SpartaError, match="A connection failed"), os_errors_in_words(tmp_path):
        raise error(errno.ECONNREFUSED)


def strange(place: Path) -> list[tuple[Path, str]]:
    (place / "real").write_text("{}")
    (place / "link").symlink_to(place / "real")
    (place / "dangling").symlink_to("nowhere")
    os.mkfifo(place / "pipe")
    (place / "folder").mkdir()
    kinds = {
        "link": "a symbolic link",
        "dangling": "a symbolic link",
        "pipe": "a named pipe",
        "folder": "a folder",
    }
    return [(place / name, kind) for name, kind in kinds.items()]


def test_only_a_file_is_present_and_anything_else_is_named(tmp_path: Path) -> None:
    paths = strange(tmp_path)
    assert present(tmp_path / "real")
    assert not present(tmp_path / "gone") and not present(tmp_path / "real" / "below")
    for path, kind in paths:
        with pytest.raises(SpartaError, match=f"{path} is {kind} where a file belongs"):
            present(path)


def test_readers_follow_links_to_files_and_never_block_on_pipes(tmp_path: Path) -> None:
    strange(tmp_path)
    assert read_json(tmp_path / "link", dict) == {}
    for name in ("pipe", "folder"):
        with pytest.raises(SpartaError, match="where a file belongs"):
            opened(tmp_path / name)


def test_a_shard_that_is_no_file_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a0-00000.jsonl")
    with pytest.raises(SpartaError, match="is a named pipe where a file belongs"):
        shard_files(tmp_path)


def test_a_measurement_that_the_disk_cannot_read_now_does_not_count_as_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "stats.json"
    path.write_text("{}")
    for number, raises in ((errno.ESTALE, True), (errno.EACCES, True), (errno.EIO, False)):

        def fail(*_: object, number: int = number) -> int:
            raise error(number)

        with monkeypatch.context() as patch:
            patch.setattr(os, "open", fail)
            if raises:
                with pytest.raises(SpartaError):
                    read_measured(path, dict)
            else:
                assert read_measured(path, dict) is None
    assert f"{path} is damaged and counts as missing" in capsys.readouterr().err
    assert read_measured(path, dict) == {}

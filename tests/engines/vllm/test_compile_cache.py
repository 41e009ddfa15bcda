"""What vLLM compiles is kept where all tasks find it, by card, and one task compiles while the others wait; with real processes."""

import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from support.store_samples import Start

from sparta.engines.vllm import compile_cache
from sparta.engines.vllm.compile_cache import CompileCache, cache_key, one_compiles
from sparta.errors import note

COMPILE = """
    import sys
    from pathlib import Path
    from sparta.engines.vllm import compile_cache
    compile_cache._LOOK_SECONDS = 0.02
    compile_cache.WAIT_SECONDS = float(sys.argv[2])
    try:
        with compile_cache.one_compiles(compile_cache.CompileCache(Path(sys.argv[1]), True), lambda error: str(error) == "no compiler"):
            print("starts", flush=True)
            end = sys.stdin.readline().strip()
            if end:
                raise SystemExit if end == "preempted" else RuntimeError(end)
    except (RuntimeError, SystemExit):
        pass
    print("ended", flush=True)
    """


def said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: "subprocess.Popen[str]", end: str = "") -> None:
    assert process.stdin is not None
    process.stdin.write(f"{end}\n")
    process.stdin.flush()


def waiting(start: Start, folder: Path, on: "subprocess.Popen[str]") -> "subprocess.Popen[str]":
    """A process that has said that it waits for `on`."""
    process = start(COMPILE, folder, 600)
    assert said(process).startswith(f"note: waiting for process {on.pid} on ")
    return process


def compiling(start: Start, folder: Path) -> "subprocess.Popen[str]":
    process = start(COMPILE, folder, 600)
    assert said(process) == "starts"
    return process


def test_others_wait_until_one_has_compiled_and_then_start_together(tmp_path: Path, start: Start) -> None:
    first = compiling(start, tmp_path)
    others = [waiting(start, tmp_path, first) for _ in range(3)]
    tell(first)
    assert [said(other) for other in others] == ["starts"] * 3
    assert {path.name for path in (tmp_path / "turn").iterdir()} == {"free", "compiled"}
    late = compiling(start, tmp_path)
    tell(late)
    assert said(late) == "ended"


@pytest.mark.parametrize("end", ["killed", "preempted", "out of memory"])
def test_another_task_compiles_after_one_that_did_not_finish(end: str, tmp_path: Path, start: Start) -> None:
    first = compiling(start, tmp_path)
    second = waiting(start, tmp_path, first)
    if end == "killed":
        first.kill()
        first.wait()
    else:
        tell(first, end)
    assert said(second) == "starts"
    third = waiting(start, tmp_path, second)
    tell(second)
    assert said(third) == "starts"


def test_nobody_waits_for_another_after_one_could_not_compile(tmp_path: Path, start: Start) -> None:
    first = compiling(start, tmp_path)
    others = [waiting(start, tmp_path, first) for _ in range(2)]
    tell(first, "no compiler")
    assert [said(other) for other in others] == ["starts"] * 2
    tell(others[0])
    assert said(others[0]) == "ended"
    assert {path.name for path in (tmp_path / "turn").iterdir()} == {"free", "compiled"}


def test_a_task_that_waits_too_long_compiles_as_well(tmp_path: Path, start: Start) -> None:
    first = compiling(start, tmp_path)
    second = start(COMPILE, tmp_path, 0.1)
    lines = [said(second) for _ in range(3)]
    assert lines[0].startswith(f"note: waiting for process {first.pid}")
    assert "this task compiles as well" in lines[1] and lines[2] == "starts"


def filled(disk: Path) -> None:
    with suppress(OSError), open(disk / "filler", "wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))


def test_a_full_disk_ends_the_waiting_and_not_the_run(
    small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note.cache_clear()
    filled(small_disk)
    with one_compiles(CompileCache(small_disk / "cache", True), lambda error: True) as waited:
        assert waited < 60
    assert "does not wait for others" in capsys.readouterr().err


def test_a_disk_that_fills_up_while_compiling_ends_nothing(small_disk: Path) -> None:
    with one_compiles(CompileCache(small_disk / "cache", True), lambda error: True):
        filled(small_disk)
    assert (small_disk / "cache" / "turn" / "free").exists()


def test_what_was_compiled_is_kept_where_the_environment_says_or_in_the_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def folder(place: Path | None) -> Path:
        return compile_cache.compile_cache(place, tmp_path / "spare", "card-1").folder

    monkeypatch.setenv("VLLM_CACHE_ROOT", str(tmp_path / "shared"))
    assert folder(tmp_path / "state") == tmp_path / "shared" / "card-1"
    monkeypatch.delenv("VLLM_CACHE_ROOT")
    assert folder(tmp_path / "state") == tmp_path / "state" / "card-1"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert folder(None) == tmp_path / "xdg" / "vllm" / "card-1"


def test_a_cache_that_cannot_be_written_ends_no_run(
    tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    filled(small_disk)
    for root in (tmp_path / "file" / "cache", Path("/dev/full/cache"), small_disk):
        note.cache_clear()
        monkeypatch.setenv("VLLM_CACHE_ROOT", str(root))
        found = compile_cache.compile_cache(None, tmp_path / "spare", "card-1")
        assert found == CompileCache(tmp_path / "spare", False)
        told = capsys.readouterr().err
        assert "vLLM cannot keep what it compiles" in told and "set VLLM_CACHE_ROOT" in told


def test_triton_keeps_its_kernels_in_the_same_folder_unless_the_environment_names_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", "/elsewhere")
    assert CompileCache(tmp_path, True).variables["TRITON_CACHE_DIR"] == "/elsewhere"
    assert CompileCache(tmp_path, False).variables["TRITON_CACHE_DIR"] == str(tmp_path / "triton")
    monkeypatch.delenv("TRITON_CACHE_DIR")
    assert CompileCache(tmp_path, True).variables["TRITON_CACHE_DIR"] == str(tmp_path / "triton")


def test_cards_bases_and_settings_do_not_share_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("vllm")
    (tmp_path / "config.json").write_text('{"hidden_size": 64}')

    def key(card: str = "Card A", base: Path = tmp_path, **arguments: object) -> str:
        monkeypatch.setattr(compile_cache, "_processor", lambda: card)
        return cache_key(str(base), arguments)

    keys = [key(), key("Card B"), key(max_loras=4), key(max_loras=5)]
    (tmp_path / "config.json").write_text('{"hidden_size": 128}')
    keys.append(key())
    assert len(set(keys)) == len(keys)
    assert key() == keys[-1] and key().startswith("card-a-")

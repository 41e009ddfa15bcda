"""What a start of vLLM costs on a GPU: which graphs it captures, and where it keeps what it compiled."""

from pathlib import Path

import pytest

from sparta.engines.vllm.compile_cache import cache_root
from sparta.engines.vllm.cuda_graphs import capture_sizes, compilation
from sparta.errors import note


@pytest.mark.parametrize(
    ("sequences", "sizes"),
    [
        (1, [1]),
        (6, [1, 2, 4, 6]),
        (32, [1, 2, 4, 8, 16, 32]),
        (100, [1, 2, 4, 8, 16, 32, 64, 96, 100]),
        (256, [1, 2, 4, 8, 16, 32, 64, 96, 128, 160, 192, 224, 256]),
    ],
)
def test_every_full_batch_has_a_graph_of_its_size(sequences: int, sizes: list[int]) -> None:
    assert capture_sizes(sequences) == sizes


@pytest.mark.parametrize("sequences", [1, 7, 64, 255, 256, 1000])
def test_no_batch_is_padded_by_more_than_itself_or_31_rows(sequences: int) -> None:
    sizes = capture_sizes(sequences)
    for batch in range(1, sequences + 1):
        padded = min(size for size in sizes if size >= batch)
        assert padded - batch <= min(31, batch)


def test_graphs_without_an_adapter_are_left_out_where_every_request_has_one() -> None:
    assert compilation(4, adapters=True) == {
        "cudagraph_capture_sizes": [1, 2, 4],
        "cudagraph_specialize_lora": False,
    }
    assert compilation(4, adapters=False) == {"cudagraph_capture_sizes": [1, 2, 4]}


def test_vllm_knows_these_options() -> None:
    config = pytest.importorskip("vllm.config.compilation")
    made = config.CompilationConfig(**compilation(64, adapters=True))
    assert made.cudagraph_capture_sizes == capture_sizes(64)
    assert made.cudagraph_specialize_lora is False


def test_what_was_compiled_is_kept_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CACHE_ROOT", str(tmp_path / "shared"))
    assert cache_root(tmp_path / "spare") == tmp_path / "shared"
    monkeypatch.delenv("VLLM_CACHE_ROOT")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root(tmp_path / "spare") == tmp_path / "xdg" / "vllm"


def test_a_cache_that_cannot_be_written_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    note.cache_clear()
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("VLLM_CACHE_ROOT", str(tmp_path / "file" / "cache"))
    assert cache_root(tmp_path / "spare") == tmp_path / "spare"
    told = capsys.readouterr().err
    assert "vLLM cannot keep what it compiles" in told and "set VLLM_CACHE_ROOT" in told
    monkeypatch.setenv("VLLM_CACHE_ROOT", "/dev/full/cache")
    assert cache_root(tmp_path / "spare") == tmp_path / "spare"

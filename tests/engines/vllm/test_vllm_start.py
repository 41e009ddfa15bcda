"""What a start of vLLM costs on a GPU: which graphs it captures."""

import pytest

from sparta.engines.vllm.cuda_graphs import capture_sizes, compilation


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

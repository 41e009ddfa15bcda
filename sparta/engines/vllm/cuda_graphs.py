"""Which CUDA graphs vLLM captures. Each one costs start time, and a batch is padded up to the next size that has one."""

from typing import Any


def capture_sizes(sequences: int) -> list[int]:
    """Batch sizes in requests, for batches of at most `sequences`: powers of two up to 32, then multiples of 32, and `sequences` itself.

    A batch of more than 32 is padded by at most 31 rows. vLLM's own list has a size for every 8 rows, up to twice `sequences`.
    """
    sizes = {size for size in (1, 2, 4, 8, 16, *range(32, sequences, 32)) if size < sequences}
    return sorted(sizes | {sequences})


def compilation(sequences: int, adapters: bool) -> dict[str, Any]:
    """vLLM's compilation_config. adapters: every request has one, so that no graph without an adapter is needed."""
    return {"cudagraph_capture_sizes": capture_sizes(sequences)} | (
        {"cudagraph_specialize_lora": False} if adapters else {}
    )

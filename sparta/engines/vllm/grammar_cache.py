"""Sampling parameters with a pattern that vLLM has looked at before. Imports vllm: import it where that is there.

vLLM 0.32 compiles the grammar of every request when that is added, to see whether it can: 0.8 ms, the same for all votes of a phase.
"""

from typing import Any

from vllm.sampling_params import SamplingParams


class CachedGrammar(SamplingParams):  # type: ignore[misc]
    """Parameters whose `structured_outputs` is one that a request of this engine has been accepted with."""

    def verify(self, *args: Any, **kwargs: Any) -> None:
        """Everything that vLLM verifies but the grammar."""
        form: Any = self.structured_outputs  # type: ignore[has-type]
        self.structured_outputs = None
        try:
            super().verify(*args, **kwargs)
        finally:
            self.structured_outputs = form

"""What runs in vLLM's workers, asked by `VllmBase`: which parts of an adapter found no module. vLLM itself leaves them out without a word."""

from typing import Any


class AdapterAccount:
    """Added to vLLM's worker class (`worker_extension_cls`)."""

    model_runner: Any

    def adapter_parts_without_place(self, number: int) -> list[str]:
        """Names, as vLLM has them, of modules that the adapter with this number has weights for and this worker's model has not.

        Those of experts are packed by vLLM in forms of their own, and not among them.
        """
        manager = self.model_runner.lora_manager._adapter_manager
        loaded = manager.get_adapter(number).loras
        return sorted(name for name in loaded if name not in manager.modules and ".experts" not in name)

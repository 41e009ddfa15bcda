"""Runs in vLLM's workers: lists the parts of an adapter that have no module. vLLM itself ignores them silently."""

from typing import Any


class AdapterAccount:
    """Added to vLLM's worker class (`worker_extension_cls`)."""

    model_runner: Any

    def adapter_parts_without_module(self, number: int) -> list[str]:
        """vLLM's names of the modules that adapter `number` has weights for but this worker's model lacks.

        Experts are left out, because vLLM packs their modules differently.
        """
        manager = self.model_runner.lora_manager._adapter_manager
        loaded = manager.get_adapter(number).loras
        return sorted(name for name in loaded if name not in manager.modules and ".experts" not in name)

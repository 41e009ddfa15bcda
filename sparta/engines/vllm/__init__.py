"""vLLM: for GPUs."""

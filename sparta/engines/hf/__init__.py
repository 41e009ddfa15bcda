"""transformers and PEFT: for CPUs and small pools."""

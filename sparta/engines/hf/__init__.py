"""The engine on transformers and PEFT: for CPUs and small pools."""

"""The data that experts are trained on."""

"""The data sets that runs are aligned on and scored on, one file each."""

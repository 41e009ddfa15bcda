"""Results of runs and studies as data frames, tables, figures and a report. `from analysis import frames`, from the top of the repository."""

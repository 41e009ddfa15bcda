"""Where a run stands."""

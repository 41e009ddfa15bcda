"""The configuration of runs: schema, loading, and the YAML recipes."""

"""The whole configuration: schema, loading, and the YAML files."""

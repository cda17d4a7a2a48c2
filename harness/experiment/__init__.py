"""Experiments: a YAML file becomes cells, cells become an interleaved plan, the runner makes it trials."""

"""Fleets: one study on many hosts, by `dask.distributed`, which nothing else of the harness needs."""

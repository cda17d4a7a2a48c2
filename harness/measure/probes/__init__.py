"""The built-in probes: they look at the processes of a trial while the load runs. Each loads as a stranger's does."""

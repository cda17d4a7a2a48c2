"""The built-in probes: they observe the processes of a trial while the load runs. Each is loaded like any plugin."""

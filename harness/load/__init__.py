"""The load: clients that ask, count and time."""

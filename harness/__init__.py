"""Measures how two processes on one machine should talk."""

__version__ = "0.1.0"

"""Measuring: trials in fresh programs, what they need, and the probes that look at them."""

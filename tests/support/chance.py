"""How probable what a simulation has shown is by chance."""

from scipy.special import bdtrc


def at_least(times, among, probability):
    """The probability that something of this probability happens so many times or more."""
    return bdtrc(times - 1, among, probability) if times else 1.0

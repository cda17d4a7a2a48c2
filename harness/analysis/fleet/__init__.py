"""The analysis of a fleet's results: each host by itself, then what holds over hosts."""

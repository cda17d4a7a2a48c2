"""The analysis of result files. It reads nothing else, so every number can be computed again from them."""

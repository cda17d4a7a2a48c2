"""Reads result files, and nothing else: every figure can be made again from them."""

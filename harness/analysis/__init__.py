"""The analysis of result files. It reads nothing else, so every number can be computed again from them."""

import os

# BLAS otherwise starts a thread on each CPU when numpy is imported, which spins for a while: no matrix here is large.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

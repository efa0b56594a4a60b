"""Statistically sized fault-injection campaigns on neural networks and their OOD detectors."""

import os

# Without it MKL's matrix products round a row by where it lies in memory, so golden and faulty
# rows of one batch could differ in their last bit. Read at MKL's first call.
os.environ.setdefault("MKL_CBWR", "AUTO")
# cuBLAS is deterministic only with a workspace of its own.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

__version__ = "0.1.0"

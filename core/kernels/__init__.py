"""One file a kernel: each computes what `core.attention.reference` defines."""

"""Tests that train: they need the extra `train`, and are run by `make test-train`."""

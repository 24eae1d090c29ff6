"""Processes of this project for tests, side by side, that do not each import torch.

One process imports what they need, and they are forks of it.
"""

import multiprocessing

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.test_indexing", "tests.test_quota", "tests.test_registry"])

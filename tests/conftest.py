"""One Prefect server for the whole test session; no test reaches the Hugging Face hub."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"

from collections.abc import Iterator

import pytest
from prefect.testing.utilities import prefect_test_harness


@pytest.fixture(scope="session", autouse=True)
def prefect_harness() -> Iterator[None]:
    """A throw-away Prefect server with an empty database."""
    with prefect_test_harness(server_startup_timeout=90):
        yield

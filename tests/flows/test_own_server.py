"""A script's own Prefect server ends with the script, however that ends."""

import os
import signal
import subprocess
import sys
import time

import pytest
import requests

from tests.prefect_server import wait_until

pytestmark = pytest.mark.whole

SCRIPT = """
import sys, time
from thumbtune.flows.own_server import OwnServer
OwnServer.start()
OwnServer.current.wait_until_ready()
print(OwnServer.current.api, flush=True)
if sys.argv[1] == "goes on":
    time.sleep(600)
"""


@pytest.fixture
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return kept | {"PREFECT_HOME": str(tmp_path_factory.mktemp("prefect"))}


def is_gone(api: str) -> bool:
    try:
        requests.get(f"{api}/health", timeout=5)
    except requests.ConnectionError:
        return True
    return False


@pytest.mark.parametrize("end", ["ends", "is killed"])
def test_it_ends_with_the_script(environment: dict[str, str], end: str) -> None:
    mode = "goes on" if end == "is killed" else "ends"
    script = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, mode], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert script.stdout
    api = script.stdout.readline().strip()
    assert api.startswith("http://127.0.0.1:")
    if mode == "goes on":
        assert requests.get(f"{api}/health", timeout=30).ok
        script.send_signal(signal.SIGKILL)
    script.wait(60)
    wait_until(lambda: is_gone(api), 40)


def test_a_server_that_cannot_start_says_why(environment: dict[str, str]) -> None:
    broken = environment | {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": "sqlite+aiosqlite:////proc/no.db"
    }
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "ends"], env=broken, capture_output=True, text=True
    )
    assert "OwnServerError: Prefect's server did not start:" in done.stderr
    assert "set PREFECT_API_URL" in done.stderr
    assert time.monotonic() - started < 120

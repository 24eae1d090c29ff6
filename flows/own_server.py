"""A Prefect server for one script, which starts while the script still imports PyTorch.

Prefect would start one by itself, but only when the flow begins, and would import the server into
the script too: 8 s more, of which this leaves what the imports do not cover. It is run as
`python -m thumbtune.flows.own_server PORT` and ends with the script, however that ends.
"""

import argparse
import atexit
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import ClassVar

import requests

from thumbtune.errors import UserError

SAID = 2000  # characters of what it has said
STARTS_IN = 240  # seconds, at most: it makes its database first, and the machine may be busy


class OwnServerError(UserError):
    """Prefect's server has not started; the message holds what it said."""


class OwnServer:
    """The server of this process, if it has one."""

    current: ClassVar["OwnServer | None"] = None

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.api = f"http://127.0.0.1:{port}/api"
        self.said = tempfile.TemporaryFile()  # noqa: SIM115 - as long as this process
        self.process = subprocess.Popen(
            [sys.executable, "-m", "thumbtune.flows.own_server", str(port)],
            stdin=subprocess.PIPE,  # whose end tells it that this process is no more
            stdout=self.said,
            stderr=self.said,
            process_group=0,  # Ctrl-C stops the run, which reports that to the server
            env=os.environ | {"PREFECT_SERVER_ANALYTICS_ENABLED": "false"},
        )

    @classmethod
    def start(cls) -> None:
        """Start it; Prefect, which is to be imported after this, finds it by the environment."""
        cls.current = cls()
        os.environ["PREFECT_API_URL"] = cls.current.api
        atexit.register(cls.current.stop)

    def wait_until_ready(self) -> None:
        """Return when it answers.

        Raises:
            OwnServerError: it does not.
        """
        deadline = time.monotonic() + STARTS_IN
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if requests.get(f"{self.api}/health", timeout=10).ok:
                    return
            except (requests.ConnectionError, requests.Timeout):
                time.sleep(0.1)
        self.said.seek(0)
        raise OwnServerError(
            f"Prefect's server did not start: {self.said.read().decode(errors='replace')[-SAID:]} "
            "Start one with `prefect server start`, and set PREFECT_API_URL to its address."
        )

    def stop(self) -> None:
        """Let it end, and wait until it has written what it was told."""
        assert self.process.stdin
        self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()


def has_server() -> bool:
    """Whether a Prefect server is set up, by the environment or a profile."""
    if os.environ.get("PREFECT_API_URL"):
        return True
    home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    try:
        return "PREFECT_API_URL" in (home / "profiles.toml").read_text()
    except OSError:
        return False


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(description="Prefect's server, until standard input ends.")
    parser.add_argument("port", type=int)
    port = parser.parse_args().port
    import uvicorn
    from prefect.server.api.server import create_app

    threading.Thread(target=_end_with_the_script, daemon=True).start()
    app = create_app(ephemeral=True, final=True)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error")


def _end_with_the_script() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()

"""How many questions does `thumbtune serve` answer a second? `python benchmarks/service.py`

A training of the bundled channel, its model served, and so many clients that ask at once, each as
soon as it was answered: requests a second, median and 95th percentile of the answers, the refused
ones (503), and the memory of the service before and after.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import requests

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "sample" / "channel" / "images" / "ZUtHjOXZGZQ.jpg"
TITLES = ["Can a RED Boat Survive in New York?", "A Yellow Castle at the Beach", "My Week"]
CLIENTS, SECONDS = (1, 4, 16, 64), 15.0


class Load(NamedTuple):
    """What came of a time of asking."""

    answered: list[float]
    """Seconds of each answer."""
    refused: int
    failed: int
    seconds: float


def train(workspace: str) -> None:
    """The model that is served."""
    command = [sys.executable, "-m", "thumbtune.app.cli", "demo", "--workspace", workspace]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def start(workspace: str, port: int) -> subprocess.Popen[bytes]:
    """The service; returns when it has answered for the first time."""
    command = [sys.executable, "-m", "thumbtune.app.cli", "serve", "--port", str(port)]
    service = subprocess.Popen([*command, "--workspace", workspace], stdout=subprocess.DEVNULL)
    while True:
        try:
            if ask(port, requests.Session()) == 200:
                return service
        except requests.ConnectionError:
            time.sleep(0.2)


def ask(port: int, session: requests.Session) -> int:
    """One question: three titles for a picture; the status of the answer."""
    where = f"http://127.0.0.1:{port}/match"
    return session.post(
        where, params={"title": TITLES}, data=PICTURE.read_bytes(), timeout=60
    ).status_code


def load(port: int, clients: int, seconds: float) -> Load:
    """Ask from so many clients at once, for so long."""
    began = time.monotonic()

    def client(_: int) -> tuple[list[float], int, int]:
        answered, refused, failed = list[float](), 0, 0
        session = requests.Session()
        while time.monotonic() < began + seconds:
            started = time.monotonic()
            status = ask(port, session)
            if status == 200:
                answered.append(time.monotonic() - started)
            elif status == 503:
                refused += 1
                time.sleep(0.1)
            else:
                failed += 1
        return answered, refused, failed

    with ThreadPoolExecutor(clients) as pool:
        parts = list(pool.map(client, range(clients)))
    took = time.monotonic() - began
    answers = [each for answered, _, _ in parts for each in answered]
    return Load(answers, sum(p[1] for p in parts), sum(p[2] for p in parts), took)


def memory(process: subprocess.Popen[bytes]) -> float:
    """MB that a process holds, where /proc tells it."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def main() -> None:
    """Read the arguments, and print the table as markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a second each, to see that it runs")
    parser.add_argument("--port", type=int, default=7869)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as workspace:
        train(workspace)
        service = start(workspace, asked.port)
        try:
            compare(service, asked.port, 1.0 if asked.quick else SECONDS)
        finally:
            service.terminate()
            service.wait(30)


def compare(service: subprocess.Popen[bytes], port: int, seconds: float) -> None:
    """Print a line for each number of clients."""
    print("| clients | answers a second | median / p95 | refused (503) | failed | memory |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for clients in CLIENTS:
        before = memory(service)
        came = load(port, clients, seconds)
        median, slow = np.percentile(came.answered, (50, 95)) * 1e3
        print(
            f"| {clients} | {len(came.answered) / came.seconds:.1f} | {median:.0f} / {slow:.0f} ms "
            f"| {came.refused} | {came.failed} | {before:.0f} → {memory(service):.0f} MB |",
            flush=True,
        )


if __name__ == "__main__":
    main()

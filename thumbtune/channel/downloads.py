"""Downloads from hosts that may be asked, of bounded size and time.

An address may come from a dataset or a channel of a stranger. So only named hosts are asked, by
HTTPS, and none that leads into the network of this machine. The address that is checked is the one
that is connected to: a name that changes its address in between (DNS rebinding) gains nothing.
"""

import contextlib
import ipaddress
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import NewConnectionError
from urllib3.util import Retry

MAX_REDIRECTS = 5

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: an IPv4 address in the last 32 bits


class RefusedHostError(Exception):
    """An address that may not be asked; the message is short and names the mend."""


class TooLargeError(Exception):
    """More bytes than allowed."""


class TooSlowError(Exception):
    """Not whole within the time limit."""


def private_hosts() -> set[str]:
    """Hosts of the own network that may be asked: THUMBTUNE_PRIVATE_HOSTS, split by commas.

    A setting of the machine and no parameter: who may start runs must not reach with them what only
    this machine can reach.
    """
    named = os.environ.get("THUMBTUNE_PRIVATE_HOSTS", "").lower().split(",")
    return {host.strip() for host in named} - {""}


def is_allowed(host: str, rules: Sequence[str]) -> bool:
    """Whether a rule names the host; `*.ytimg.com` stands for every host below ytimg.com."""
    return any(
        host.endswith(rule[1:]) if rule.startswith("*.") else host == rule
        for rule in (rule.lower() for rule in rules)
    )


def check_url(url: str, allowed_hosts: Sequence[str]) -> None:
    """Let an address pass that is https at an allowed host, or at a named host of the own network.

    Raises:
        RefusedHostError: it is another one.
    """
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".")
    except ValueError:
        raise RefusedHostError("no valid URL") from None
    if parts.username or parts.password:
        raise RefusedHostError("a URL with a user name; remove it")
    if host in private_hosts() and parts.scheme in ("https", "http"):
        return
    if not is_allowed(host, allowed_hosts):
        raise RefusedHostError(f"host {host!r} is not in thumbnails.allowed_hosts; add it there")
    if parts.scheme != "https":
        raise RefusedHostError(f"{parts.scheme}:// instead of https://; give an https URL")


def is_public(address: Address) -> bool:
    """Whether an address is of the public internet; one that holds an IPv4 address counts as that.

    Loopback, private, link-local, multicast and reserved ones are not.
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
        if inner := address.ipv4_mapped or address.sixtofour:
            return is_public(inner)
    return address.is_global and not address.is_multicast


def checked_addresses(host: str, port: int, encrypted: bool) -> list[str]:
    """The addresses of a host, all of which may be connected to.

    Raises:
        RefusedHostError: one of them may not.
        OSError: there is no such host.
    """
    found = [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    for text in found:
        address = ipaddress.ip_address(text)
        if not is_public(address) and host.lower() not in private_hosts():
            raise RefusedHostError(
                f"host {host!r} is in a private network; THUMBTUNE_PRIVATE_HOSTS may name it"
            )
        if not encrypted and not address.is_loopback:
            raise RefusedHostError("http:// instead of https://; give an https URL")
    return found


class _Checked(HTTPConnection):
    """Connects to an address that was checked, and limits the time that an answer's head takes."""

    def _new_conn(self) -> socket.socket:
        host, encrypted = self._dns_host, isinstance(self, HTTPSConnection)
        try:
            addresses = checked_addresses(host, self.port, encrypted)
        except OSError as error:
            raise NewConnectionError(self, f"no address of {host}: {error}") from None
        failure: Exception = NewConnectionError(self, f"no address of {host}")
        try:
            for self._dns_host in addresses:
                try:
                    return super()._new_conn()
                except urllib3.exceptions.HTTPError as error:
                    failure = error
        finally:
            self._dns_host = host  # the certificate must be of this name
        raise failure

    def getresponse(self) -> Any:
        """A socket's time-out holds for each byte, so a head could come in drips for hours."""
        is_late = threading.Event()
        timer = threading.Timer(float(self.timeout or 60), _hang_up, [self.sock, is_late])
        timer.daemon = True
        timer.start()
        try:
            answer = super().getresponse()
        finally:
            timer.cancel()
        if is_late.is_set():  # http.client takes a head that breaks off for a whole one
            raise TimeoutError
        return answer


def _hang_up(connection: socket.socket, is_late: threading.Event) -> None:
    is_late.set()
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class _CheckedHTTPS(_Checked, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Checked


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _CheckedHTTPS


class _Adapter(HTTPAdapter):
    """Of requests, with checked connections; behind a proxy, the proxy decides what is reached."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _HTTPSPool}


def checked_session(connections: int, retry: Retry) -> requests.Session:
    """A session that connects to public hosts and to named private ones only.

    Args:
        connections: how many are kept open for each host.
    """
    session = requests.Session()
    adapter = _Adapter(max_retries=retry, pool_maxsize=connections)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


@contextmanager
def checked_get(
    session: requests.Session,
    url: str,
    allowed_hosts: Sequence[str],
    timeout: float,
    headers: Mapping[str, str] | None = None,
) -> Iterator[requests.Response]:
    """Ask for an address and follow up to `MAX_REDIRECTS` redirects, each of them checked.

    Args:
        timeout: seconds for each connection and each answer's head.
        headers: of each request, beside the usual ones.

    Yields:
        The last answer, its body not yet read.

    Raises:
        RefusedHostError: an address on the way may not be asked.
        requests.RequestException: no answer.
    """
    for _ in range(MAX_REDIRECTS + 1):
        check_url(url, allowed_hosts)
        with session.get(
            url, headers=headers, timeout=timeout, stream=True, allow_redirects=False
        ) as answer:
            if not answer.is_redirect:
                yield answer
                return
            url = urljoin(url, answer.headers["Location"])
    raise RefusedHostError(f"more than {MAX_REDIRECTS} redirects")


def read_body(answer: requests.Response, max_bytes: int, deadline: float) -> bytes:
    """The whole body of a streamed answer, its content encoding undone.

    Args:
        deadline: on the clock of time.monotonic().

    Raises:
        TooLargeError, TooSlowError: it passes a limit.
        urllib3.exceptions.HTTPError: it broke off.
    """
    body = bytearray()
    while chunk := answer.raw.read1(65_536, decode_content=True):  # read() waits on a slow drip
        body += chunk
        if len(body) > max_bytes:
            raise TooLargeError
        if time.monotonic() > deadline:
            raise TooSlowError
    return bytes(body)

"""Where `thumbtune web` may be asked for its page; known before torch and Gradio are loaded."""

import re
import socket
from collections.abc import Sequence

from thumbtune.errors import UserError

LOOPBACK = ("127.0.0.1", "localhost")


class AddressError(UserError, ValueError):
    """The page cannot be served at this host and port."""


def check_address(
    host: str, port: int, root_path: str, allowed_hosts: Sequence[str]
) -> tuple[str, list[str]]:
    """The path of the page, and the names by which it may be asked for; see `serve`.

    Raises:
        AddressError: the port is taken, the host is not this machine, or the path or a name is
            none.
    """
    path, names = _checked_path(root_path), host_names(host, allowed_hosts)
    _check_free(host, port)
    return path, names


def _check_free(host: str, port: int) -> None:
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise AddressError(
            f"cannot listen on {host}, port {port}: {error.strerror}. Give another --port, or as "
            "--host a name or IPv4 address of this machine."
        ) from None


def _checked_path(root_path: str) -> str:
    """The path below which a proxy serves the page, as /path; empty for the root."""
    path = root_path.strip("/")
    if not re.fullmatch(r"[\w.~/-]*", path) or "//" in path:
        raise AddressError(
            f"--root-path: {root_path!r} is no path. Give the part of the page's address that "
            "follows the host's name, such as /thumbtune."
        )
    return f"/{path}" if path else ""


def host_names(host: str, allowed: Sequence[str]) -> list[str]:
    """The names by which the page may be asked for; * is any.

    Another site's name, pointed at this machine, would let that site's scripts read the page. So
    there are only those of this machine and `allowed` ones, unless the page is open to others.
    """
    for name in allowed:
        if not re.fullmatch(r"(\*\.)?[\w-]+(\.[\w-]+)*", name):
            raise AddressError(
                f"--allowed-host: {name!r} is no host name. Give it alone, such as example.org "
                "or *.example.org, without https://, port and path."
            )
    if host not in LOOPBACK and not allowed:
        return ["*"]
    return [*LOOPBACK, host, *(name.lower() for name in allowed)]

"""Which hosts thumbnails may come from, and how much and how long; real servers on loopback."""

import gzip
import ipaddress
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from pytest_httpserver import HTTPServer
from werkzeug import Response

from tests.data.test_thumbnails import encoded, picture
from thumbtune.channel.downloads import is_allowed, is_public
from thumbtune.channel.listing import Video
from thumbtune.data.thumbnails import MAX_BYTES, Thumbnail, ThumbnailStore
from thumbtune.parameters import ThumbnailsParameters
from thumbtune.store.workspace import Workspace

pytestmark = pytest.mark.compatibility

DEFAULT = ThumbnailsParameters().allowed_hosts


@pytest.fixture
def get(workspace: Workspace) -> Callable[..., Thumbnail]:
    def get(url: str, quality: str = "high", **parameters: Any) -> Thumbnail:
        video = Video(id="v", title="t", thumbnails={quality: url})
        settings = ThumbnailsParameters.model_validate(parameters)
        return ThumbnailStore(workspace, settings, refresh=False).get(video)

    return get


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Name → the addresses that the next lookups of it give, the last one for ever."""
    answers: dict[str, list[str]] = {}
    real = socket.getaddrinfo

    def lookup(host: str, port: int, *args: Any, **options: Any) -> Any:
        known = answers.get(host, [host])
        return real(known.pop(0) if len(known) > 1 else known[0], port, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    return answers


@contextmanager
def raw_server(*pieces: bytes, pause: float = 0.0) -> Iterator[str]:
    """A server that sends these bytes to whoever connects, with pauses; its address."""
    stop = threading.Event()

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=[connection], daemon=True).start()

    def answer(connection: socket.socket) -> None:
        with connection:
            connection.recv(65_536)
            for piece in pieces:
                try:
                    connection.sendall(piece)
                except OSError:
                    return
                if stop.wait(pause):
                    return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/a.jpg"
        stop.set()
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("host", ["i.ytimg.com", "i9.ytimg.com", "yt3.ggpht.com"])
def test_youtubes_own_hosts_are_allowed(host: str) -> None:
    assert is_allowed(host, DEFAULT)


@pytest.mark.parametrize(
    "host", ["ytimg.com.evil.org", "evilytimg.com", "ytimg.com", "example.org", ""]
)
def test_hosts_that_only_look_like_it_are_not(host: str) -> None:
    assert not is_allowed(host, DEFAULT)


@pytest.mark.parametrize("rule", ["*", "*.com", "https://i.ytimg.com", "a.*.com", ""])
def test_a_rule_that_would_let_anyone_in_or_nobody_is_an_error_of_the_field(rule: str) -> None:
    with pytest.raises(ValidationError, match="allowed_hosts"):
        ThumbnailsParameters.model_validate({"allowed_hosts": [rule]})


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://example.org/a.jpg", "'example.org' is not in thumbnails.allowed_hosts; add it"),
        ("http://i.ytimg.com/a.jpg", "http:// instead of https://; give an https URL"),
        ("ftp://i.ytimg.com/a.jpg", "ftp:// instead of https://"),
        ("file:///etc/passwd", "host '' is not in thumbnails.allowed_hosts"),
        ("/etc/passwd", "host '' is not in thumbnails.allowed_hosts"),
        ("https://me:pw@i.ytimg.com/a.jpg", "a URL with a user name; remove it"),
        ("https://i.ytimg.com@example.org/a.jpg", "a URL with a user name; remove it"),
        ("https://[::1/a.jpg", "no valid URL"),
    ],
)
def test_an_address_that_may_not_be_asked_is_dropped_with_the_mend(
    get: Callable[..., Thumbnail], url: str, reason: str
) -> None:
    thumbnail = get(url)
    assert reason in str(thumbnail.dropped)
    assert not thumbnail.may_come


def test_a_host_that_is_named_is_asked(
    httpserver: HTTPServer, get: Callable[..., Thumbnail], monkeypatch: pytest.MonkeyPatch
) -> None:
    httpserver.expect_request("/a.jpg").respond_with_data(encoded(picture()))
    assert get(httpserver.url_for("/a.jpg")).image
    monkeypatch.delenv("THUMBTUNE_PRIVATE_HOSTS")
    assert "is not in thumbnails.allowed_hosts" in str(get(httpserver.url_for("/b.jpg")).dropped)


ADDRESSES = ["127.0.0.1", "10.0.0.1", "169.254.169.254", "100.64.0.1", "224.0.0.251", "0.0.0.0"]
ADDRESSES += ["::1", "fe80::1", "fd00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"]


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_allowed_name_that_leads_into_a_private_network_is_refused(
    get: Callable[..., Thumbnail], lookups: dict[str, list[str]], address: str
) -> None:
    lookups["i.ytimg.com"] = [address]
    said = "host 'i.ytimg.com' is in a private network; THUMBTUNE_PRIVATE_HOSTS may name it"
    assert get("https://i.ytimg.com/a.jpg").dropped == said


def test_no_parameter_opens_the_private_network(
    httpserver: HTTPServer, get: Callable[..., Thumbnail], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("THUMBTUNE_PRIVATE_HOSTS")
    for scheme, reason in (("http", "give an https URL"), ("https", "is in a private network")):
        url = f"{scheme}://127.0.0.1:{httpserver.port}/a.jpg"
        assert reason in str(get(url, allowed_hosts=["127.0.0.1"]).dropped)
    assert not httpserver.log


@pytest.mark.parametrize("address", ["8.8.8.8", "142.250.74.214", "2a00:1450:4001:80e::2016"])
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_in_an_ipv6_one_is_judged_as_itself(address: ipaddress.IPv4Address) -> None:
    expected = is_public(address)
    for holder in (f"::ffff:{address}", f"64:ff9b::{address}"):
        assert is_public(ipaddress.ip_address(holder)) == expected


def test_what_was_checked_is_connected_to_though_the_name_changes(
    httpserver: HTTPServer, get: Callable[..., Thumbnail], lookups: dict[str, list[str]]
) -> None:
    httpserver.expect_request("/a.jpg").respond_with_data(encoded(picture()))
    lookups["localhost"] = ["127.0.0.1", "127.0.0.9"]  # nobody listens at the second
    assert get(f"http://localhost:{httpserver.port}/a.jpg").image


def redirect(httpserver: HTTPServer, path: str, to: str) -> None:
    answer = Response("", 302, {"Location": to})
    httpserver.expect_request(path).respond_with_response(answer)


def test_redirects_are_followed(httpserver: HTTPServer, get: Callable[..., Thumbnail]) -> None:
    redirect(httpserver, "/0", "/1")
    redirect(httpserver, "/1", httpserver.url_for("/a.jpg"))
    httpserver.expect_request("/a.jpg").respond_with_data(encoded(picture()))
    assert get(httpserver.url_for("/0")).image


@pytest.mark.parametrize(
    ("to", "reason"),
    [
        ("https://example.org/a.jpg", "'example.org' is not in thumbnails.allowed_hosts"),
        ("file:///etc/passwd", "host '' is not in thumbnails.allowed_hosts"),
        ("http://i.ytimg.com/a.jpg", "http:// instead of https://"),
        ("https://i.ytimg.com/a.jpg", "is in a private network"),
    ],
)
def test_each_redirect_is_checked(
    httpserver: HTTPServer,
    get: Callable[..., Thumbnail],
    lookups: dict[str, list[str]],
    to: str,
    reason: str,
) -> None:
    lookups["i.ytimg.com"] = ["169.254.169.254"]
    redirect(httpserver, "/0", to)
    assert reason in str(get(httpserver.url_for("/0")).dropped)


def test_redirects_come_to_an_end(httpserver: HTTPServer, get: Callable[..., Thumbnail]) -> None:
    redirect(httpserver, "/0", "/0")
    assert get(httpserver.url_for("/0")).dropped == "more than 5 redirects"
    assert len(httpserver.log) == 6


def test_a_picture_that_does_not_end_is_cut_off(
    httpserver: HTTPServer, get: Callable[..., Thumbnail]
) -> None:
    chunks = (b"x" * 1_000_000 for _ in range(1 + MAX_BYTES // 1_000_000))
    answer = Response(chunks)  # type: ignore[arg-type]
    httpserver.expect_request("/a.jpg").respond_with_response(answer)
    assert get(httpserver.url_for("/a.jpg")).dropped == "larger than 20 MB"


def test_what_unpacks_to_too_much_is_cut_off(
    httpserver: HTTPServer, get: Callable[..., Thumbnail]
) -> None:
    data = gzip.compress(bytes(MAX_BYTES + 1))
    headers = {"Content-Encoding": "gzip"}
    httpserver.expect_request("/a.jpg").respond_with_data(data, headers=headers)
    assert get(httpserver.url_for("/a.jpg")).dropped == "larger than 20 MB"


def test_a_packed_picture_is_unpacked(
    httpserver: HTTPServer, workspace: Workspace, get: Callable[..., Thumbnail]
) -> None:
    data, headers = encoded(picture()), {"Content-Encoding": "gzip"}
    httpserver.expect_request("/a.jpg").respond_with_data(gzip.compress(data), headers=headers)
    stored = get(httpserver.url_for("/a.jpg")).image
    assert (workspace.root / str(stored)).read_bytes() == data


@pytest.mark.slow
def test_a_head_that_drips_is_cut_off(get: Callable[..., Thumbnail]) -> None:
    drips = [b"HTTP/1.1 200 OK\r\n", *(b"X: y\r\n" for _ in range(90))]
    with raw_server(*drips, pause=0.1) as url:
        thumbnail = get(url, timeout_seconds=0.4)
    assert (thumbnail.dropped, thumbnail.may_come) == ("download failed", True)


def test_a_body_that_breaks_off_is_no_picture_and_tried_again(
    get: Callable[..., Thumbnail],
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
    with raw_server(head, encoded(picture())) as url:
        thumbnail = get(url)
    assert (thumbnail.dropped, thumbnail.may_come) == ("download failed", True)


def test_a_local_file_is_read_only_where_the_source_is_local(
    tmp_path: Path, get: Callable[..., Thumbnail]
) -> None:
    """A stranger's dataset cannot name a file of this machine as its thumbnail_url."""
    (tmp_path / "mine.png").write_bytes(encoded(picture(), "PNG"))
    assert get(str(tmp_path / "mine.png"), quality="file").image
    assert get(str(tmp_path / "mine.png"), quality="high").image is None

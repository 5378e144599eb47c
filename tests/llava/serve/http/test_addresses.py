"""Pictures from addresses: what is fetched, and what a service must not be talked into asking."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llava.common.errors import InputError
from llava.serve.http import addresses
from llava.serve.http.addresses import AddressFetcher, AllowedHost, is_public
from llava.serve.http.errors import ApiError
from llava.serve.http.limits import Limits

BODY = b"the bytes of a picture"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
NOT_PUBLIC = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/29",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "168.63.129.16/32",
    "::/128",
    "::1/128",
    "::/96",
    "::ffff:0:0/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/32",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
    "fd00:ec2::254/128",
]
LIMITS = Limits()
FETCHER = AddressFetcher(["photos.example.com"], LIMITS)
Reply = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Site:
    """A server on this machine: what it replies to each path, and the heads of the requests that came."""

    replies: dict[str, Reply] = field(default_factory=dict)
    ssl_context: ssl.SSLContext | None = None
    heads: list[str] = field(default_factory=list)

    def fetch(self, url: str, *allowed: str, limits: Limits = LIMITS) -> bytes:
        """Fetch `url`, in which PORT stands for the server's; by default only 127.0.0.1:PORT is allowed."""
        return asyncio.run(self._fetch(url, allowed or ("127.0.0.1:PORT",), limits))

    async def _fetch(self, url: str, allowed: tuple[str, ...], limits: Limits) -> bytes:
        server = await asyncio.start_server(self._reply, "127.0.0.1", 0, ssl=self.ssl_context)
        port = str(server.sockets[0].getsockname()[1])
        try:
            fetcher = AddressFetcher([entry.replace("PORT", port) for entry in allowed], limits)
            return await fetcher.fetch(url.replace("PORT", port))
        finally:
            server.close()

    async def _reply(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            reply = self.replies[head.split()[1]]
            if isinstance(reply, bytes):
                port = writer.get_extra_info("sockname")[1]
                writer.write(reply.replace(b"PORT", str(port).encode()))
                await writer.drain()
            else:
                await reply(writer)
        except ConnectionError:
            pass
        finally:
            writer.close()


def redirect(to: str) -> bytes:
    return f"HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nSet-Cookie: a=b\r\n\r\n".encode()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list[str]]]:
    """A resolver of our own: a name's addresses, of which each time it is asked the first is dropped."""
    known: dict[str, list[str]] = {}

    async def resolve(host: str) -> list[IPv4Address | IPv6Address]:
        return [ip_address(known[host].pop(0))]

    monkeypatch.setattr(addresses, "resolve", resolve)
    yield known


def addresses_in(networks: list[IPv4Network | IPv6Network]) -> st.SearchStrategy[IPv4Address | IPv6Address]:
    return st.one_of([st.ip_addresses(network=network) for network in networks])


@given(addresses_in([IPv6Network(text) if ":" in text else IPv4Network(text) for text in NOT_PUBLIC]))
@example(ip_address("169.254.169.254"))
@example(ip_address("::ffff:8.8.8.8"))
@example(ip_address("64:ff9b::808:808"))
def test_no_address_of_a_special_network_is_public(ip: IPv4Address | IPv6Address) -> None:
    assert not is_public(ip)


@given(st.ip_addresses())
def test_what_python_does_not_call_global_is_not_public(ip: IPv4Address | IPv6Address) -> None:
    assert ip.is_global or not is_public(ip)


@pytest.mark.parametrize("ip", ["8.8.8.8", "172.15.255.255", "172.32.0.0", "2606:4700:4700::1111", "2a00::1"])
def test_addresses_of_the_internet_are_public(ip: str) -> None:
    assert is_public(ip_address(ip))


@pytest.mark.parametrize(
    "entry",
    ["", "*", "*.", "*.10.0.0.1", "a.*.com", "http://a.com", "a.com/", "a.com/x", "a.com?", "a.com:",
     "a.com:0", "a.com:70000", "a.com:x", "me@a.com", "127.1", "2130706433", "0x7f000001", "0177.0.0.1",
     "10.0.0.1/8", "[::1", "a..com", "a b"],
)  # fmt: skip
def test_an_entry_that_is_no_host_is_one_line(entry: str) -> None:
    with pytest.raises(InputError, match="cannot be allowed: name a host"):
        AllowedHost.parse(entry)


@pytest.mark.parametrize(
    ("entry", "scheme", "host", "port", "taken"),
    [
        ("a.com", "http", "a.com", 80, True),
        ("a.com", "https", "a.com", 443, True),
        ("a.com", "http", "a.com", 443, False),
        ("a.com", "http", "a.com", 8080, False),
        ("a.com", "http", "b.a.com", 80, False),
        ("a.com", "http", "a.com.evil.org", 80, False),
        ("A.com:8080", "http", "a.com", 8080, True),
        ("a.com:8080", "http", "a.com", 80, False),
        ("*.a.com", "https", "x.y.a.com", 443, True),
        ("*.a.com", "https", "a.com", 443, False),
        ("*.a.com", "https", "evila.com", 443, False),
        ("bücher.de", "https", "xn--bcher-kva.de", 443, True),
        ("10.0.0.0/8", "http", "10.1.2.3", 80, True),
        ("10.0.0.0/8", "http", "11.1.2.3", 80, False),
        ("10.0.0.0/8", "http", "::ffff:10.1.2.3", 80, False),
        ("10.0.0.5:9000", "http", "10.0.0.5", 9000, True),
        ("::1", "http", "::1", 80, True),
        ("[::1]:9000", "http", "::1", 9000, True),
    ],
)
def test_what_an_entry_takes(entry: str, scheme: str, host: str, port: int, taken: bool) -> None:
    assert AllowedHost.parse(entry).takes(scheme, host, port) is taken


def test_a_listed_address_is_fetched_without_cookies_proxy_or_compression(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    site = Site({"/a%20b?c=d": redirect("/photo"), "/photo": OK})
    assert site.fetch("http://127.0.0.1:PORT/a b?c=d#e") == BODY
    second = site.heads[1].lower()
    assert second.startswith("get /photo http/1.1\r\nhost: 127.0.0.1:")
    assert "accept-encoding: identity" in second
    assert "cookie" not in second and "authorization" not in second


def test_a_name_is_resolved_once_and_connected_to_where_it_was_checked(names: dict[str, list[str]]) -> None:
    site = Site({"/photo": OK})
    names["photos.test"] = ["127.0.0.1", "10.255.255.1"]
    assert site.fetch("http://photos.test:PORT/photo", "photos.test:PORT", "127.0.0.1") == BODY
    assert names["photos.test"] == ["10.255.255.1"]
    assert "host: photos.test:" in site.heads[0].lower()


@pytest.mark.parametrize("ip", ["127.0.0.1", "10.0.0.1", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"])
def test_a_listed_name_opens_no_private_network(names: dict[str, list[str]], ip: str) -> None:
    site = Site({"/photo": OK})
    names["photos.test"] = [ip]
    assert refusal(site, "http://photos.test:PORT/photo", "photos.test:PORT").code == "address_refused"
    assert site.heads == []


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1/", "http://localhost:PORT/", "http://127.1:PORT/", "http://2130706433:PORT/",
     "http://0x7f000001:PORT/", "http://0177.0.0.1:PORT/", "http://[::1]:PORT/", "http://0.0.0.0:PORT/",
     "http://[::ffff:127.0.0.1]:PORT/", "http://[::ffff:7f00:1]:PORT/", "http://[::127.0.0.1]:PORT/",
     "http://[::]:PORT/", "http://169.254.169.254/latest/meta-data/", "http://[fd00:ec2::254]/",
     "http://a.com:PORT@127.0.0.1:22/", "http://127.0.0.1:PORT\\@a.com/", "http://127.0.0.1:PORT.a.com/",
     "http://me:secret@127.0.0.1:PORT/", "http://127.0.0.1%2ea.com:PORT/", "http://127.0.0.1:-1/",
     "http://127.0.0.1:0/", "http://127.0.0.1:x/", "file:///etc/passwd", "/etc/passwd", "//127.0.0.1:PORT/",
     "gopher://127.0.0.1:PORT/", "ftp://127.0.0.1:PORT/", "data:image/png;base64,AAAA", "", "http://",
     "http:/127.0.0.1:PORT/", "http://[", "\0", "http://a\r\nHost: b/", "http://" + "a" * 70_000],
)  # fmt: skip
def test_other_addresses_are_refused_unasked(url: str) -> None:
    site = Site({"/": OK})
    assert refusal(site, url).code == "address_refused"
    assert site.heads == []


def test_without_a_list_all_is_refused() -> None:
    with pytest.raises(ApiError, match=r"pictures are not taken from '8\.8\.8\.8'") as refused:
        asyncio.run(AddressFetcher([], LIMITS).fetch("http://8.8.8.8/a.jpg"))
    assert (refused.value.status, refused.value.param) == (400, "messages")


@given(st.text(max_size=60) | st.from_regex(r"https?://[^/]{0,40}(/.*)?", fullmatch=True))
def test_whatever_is_given_as_an_address_is_refused_in_one_way(url: str) -> None:
    with pytest.raises(ApiError):
        asyncio.run(FETCHER.fetch(url))


@pytest.mark.parametrize(
    "to",
    ["http://169.254.169.254/latest/meta-data/", "http://127.0.0.1:1/", "http://localhost:PORT/photo",
     "//[::1]:PORT/photo", "file:///etc/passwd", "http://2130706433:PORT/photo", "http://a:b@127.0.0.1:PORT/",
     "http://[", "\xff"],
)  # fmt: skip
def test_a_redirect_is_checked_as_the_address_was(to: str) -> None:
    site = Site({"/a": redirect("/b"), "/b": redirect(to), "/%C3%BF": b"HTTP/1.1 404 No\r\n\r\n"})
    assert refusal(site, "http://127.0.0.1:PORT/a").code in ("address_refused", "address_failed")
    assert len(site.heads) <= 3 and not any("photo" in head for head in site.heads)


def test_three_redirects_are_followed_and_no_more() -> None:
    site = Site({f"/{n}": redirect(f"http://127.0.0.1:PORT/{n + 1}") for n in range(4)} | {"/4": OK})
    assert site.fetch("http://127.0.0.1:PORT/1") == BODY
    assert "redirects more than 3 times" in refusal(site, "http://127.0.0.1:PORT/0").message


async def drip(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)


async def silence(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(5)


async def endless_body(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + bytes(2**16) + b"\r\n")
        await writer.drain()


async def endless_head(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X: " + b"x" * 1000 + b"\r\n")
        await writer.drain()


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (drip, "took longer than 0.3 seconds"),
        (silence, "took longer than 0.3 seconds"),
        (endless_body, "gave more than 1048576 bytes"),
        (endless_head, "gave no answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b", "answered with a compressed body"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", "gave no answer"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "answered with status 404"),
        (b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", "answered with status 302"),
        (b"\x16\x03\x01 not HTTP\r\n\r\n", "gave no answer"),
        (b"", "gave no answer"),
    ],
)
def test_a_reply_that_is_no_picture_in_time_and_size_is_one_sentence(reply: Reply, message: str) -> None:
    site = Site({"/": reply})
    failed = refusal(
        site, "http://127.0.0.1:PORT/", limits=Limits(max_address_seconds=0.3, max_address_mib=1)
    )
    assert failed.code == "address_failed"
    assert failed.message.startswith(f"the address of a picture {message}")


def test_a_port_where_nobody_listens_is_one_sentence() -> None:
    assert "gave no answer" in refusal(Site(), "http://127.0.0.1:1/", "127.0.0.1:1").message


@pytest.mark.parametrize("certified", ["photos.test", "other.test"])
def test_the_certificate_must_be_for_the_name(
    names: dict[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, certified: str
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-subj", "/CN=test", "-addext", f"subjectAltName=DNS:{certified}", "-keyout", key,
         "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    site = Site({"/photo": OK}, ssl_context=context)
    names["photos.test"] = ["127.0.0.1"]
    asked = ("https://photos.test:PORT/photo", "photos.test:PORT", "127.0.0.1")
    if certified == "photos.test":
        assert site.fetch(*asked) == BODY
    else:
        assert "CERTIFICATE_VERIFY_FAILED" in refusal(site, *asked).message


def refusal(site: Site, url: str, *allowed: str, limits: Limits = LIMITS) -> ApiError:
    """Return the error that fetching ends with."""
    with pytest.raises(ApiError) as error:
        site.fetch(url, *allowed, limits=limits)
    assert error.value.status == 400 and "\n" not in error.value.message and len(error.value.message) < 400
    return error.value

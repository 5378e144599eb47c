"""Pictures from addresses: fetched from listed hosts only, and never from where only this machine may go.

    fetcher = AddressFetcher(["photos.example.com", "*.cdn.example.com", "10.1.0.0/16"], Limits())
    data = await fetcher.fetch("https://photos.example.com/line7/photo.jpg")

The client of a service chooses the address and the service makes the connection, so an address that is not
checked reaches whatever the service can reach: this machine, the network around it, a cloud's credentials
(server-side request forgery). Two rules hold for each address, and for each that it redirects to:

1. The host is listed, by name or by IP address, and so is the port unless it is that of the scheme.
2. The IP address is public, or is itself listed: a listed *name* does not open a private network, since
   whoever runs its DNS could point it at one.

A name is resolved once, and the connection is made to the IP address that was checked.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import httpx2

from llava.common.errors import InputError, one_line
from llava.serve.http.errors import ApiError
from llava.serve.http.limits import Limits

MAX_REDIRECTS = 3
DEFAULT_PORTS = {"http": 80, "https": 443}
REDIRECTS = {301, 302, 303, 307, 308}
# the last label of a host name is no number: "127.1" and "0x7f000001" are IP addresses to a resolver
HOST_NAME = re.compile(r"(?=.{1,253}$)([a-z0-9_-]{1,63}\.)*(?!0x|[0-9]+$)[a-z0-9_-]{1,63}")
IPV6_PUBLIC = IPv6Network("2000::/3")
"""All that is given out to be reached from anywhere. Outside are loopback, link-local and private addresses,
multicast, and what holds an IPv4 address: IPv4-mapped (::ffff:0:0/96) and NAT64 (64:ff9b::/96)."""
NEVER_PUBLIC: list[IPv4Network | IPv6Network] = [
    IPv6Network("2001::/23"),  # Teredo and other protocols
    IPv6Network("2001:db8::/32"),  # documentation
    IPv6Network("2002::/16"),  # 6to4, which holds an IPv4 address
    IPv6Network("3fff::/20"),  # documentation
    IPv4Network("192.88.99.0/24"),  # 6to4 relays
    IPv4Network("168.63.129.16/32"),  # public by its number, but the host of an Azure machine
]


def is_public(ip: IPv4Address | IPv6Address) -> bool:
    """Return whether `ip` is reached over the Internet: no private, local, shared, multicast, reserved or
    unspecified address, no cloud's metadata service, and no IPv6 form of an IPv4 address."""
    if any(ip in network for network in NEVER_PUBLIC):
        return False
    if isinstance(ip, IPv6Address):
        return ip in IPV6_PUBLIC
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


@dataclass(frozen=True)
class AllowedHost:
    """An entry of the allow list: a host name, or a network of IP addresses."""

    name: str
    """In lower case; it begins with a dot where it stands for all names below. Empty for a network."""
    network: IPv4Network | IPv6Network | None
    port: int | None
    """None for 80 with http and 443 with https."""

    @classmethod
    def parse(cls, entry: str) -> AllowedHost:
        """Read an entry.

        Args:
            entry: A host, such as `photos.example.com`, `*.example.com`, `10.1.2.3` or `fd00::5`, with or
                without a port behind it (`[fd00::5]:8080`), or a network, such as `10.1.0.0/16`.

        Raises:
            InputError: it is none of these.
        """
        wanted = InputError(
            f"{entry!r} cannot be allowed: name a host (photos.example.com, *.example.com), an IP address or"
            " a network (10.1.0.0/16), with a port where it is not the usual one (photos.example.com:8080)"
        )
        if (network := _network(entry)) is not None:
            return cls("", network, None)
        below = entry.startswith("*.")
        try:
            url = httpx2.URL(f"any://{entry.removeprefix('*.')}")  # of no scheme, whose port would be dropped
        except httpx2.InvalidURL:
            raise wanted from None
        host, port = _host(url), url.port
        network = _network(host)
        if url.userinfo or url.raw_path != b"/" or url.fragment or entry.endswith(("/", "?", "#", ":")):
            raise wanted
        if port is not None and not 0 < port < 2**16:
            raise wanted
        if network is not None and not below:
            return cls("", network, port)
        if not HOST_NAME.fullmatch(host):
            raise wanted
        return cls(f".{host}" if below else host, None, port)

    def takes(self, scheme: str, host: str, port: int) -> bool:
        """Return whether an address's host and port are those of the entry."""
        if port != (DEFAULT_PORTS[scheme] if self.port is None else self.port):
            return False
        if self.network is not None:
            ip = _ip(host)
            return ip is not None and ip in self.network
        return host.endswith(self.name) if self.name.startswith(".") else host == self.name


class _RefusedError(Exception):
    """An address may not be asked."""


class _FailedError(Exception):
    """An address was asked and gave no picture; the message goes on from "the address of a picture"."""


class AddressFetcher:
    """Fetches pictures from the hosts of an allow list."""

    def __init__(self, allowed: Iterable[str], limits: Limits) -> None:
        """Read the allow list.

        Args:
            allowed: Its entries, as `AllowedHost.parse` reads them; none, and all addresses are refused.
            limits: How long a fetch may take, and how large a picture may be.

        Raises:
            InputError: an entry cannot be read.
        """
        self._allowed = [AllowedHost.parse(entry) for entry in allowed]
        self._limits = limits
        # once: reading the certificates takes longer than many a fetch
        self._ssl_context = httpx2.create_ssl_context() if self._allowed else None

    async def fetch(self, url: str) -> bytes:
        """Return what is at an http or https address, after at most three redirects.

        Raises:
            ApiError: 400 with code `address_refused` where the address may not be asked, `address_failed`
                where it gave no picture in time and size.
        """
        seconds = self._limits.max_address_seconds
        try:
            async with asyncio.timeout(seconds):
                return await self._follow(url)
        except _RefusedError as error:
            raise ApiError(400, str(error), param="messages", code="address_refused") from None
        except TimeoutError:
            reason = f"took longer than {seconds:g} seconds"
        except (httpx2.TransportError, OSError) as error:
            reason = f"gave no answer: {one_line(error)}"
        except _FailedError as error:
            reason = str(error)
        message = f"the address of a picture {reason}"
        raise ApiError(400, message, param="messages", code="address_failed")

    async def _follow(self, url: str) -> bytes:
        """Return the body of the first reply that is no redirect."""
        try:
            target = httpx2.URL(url)
            for _ in range(1 + MAX_REDIRECTS):
                reply = await self._get(target)
                if isinstance(reply, bytes):
                    return reply
                target = target.join(reply)
        except (httpx2.InvalidURL, UnicodeError):
            raise _RefusedError("the address of a picture cannot be read as a URL") from None
        raise _FailedError(f"redirects more than {MAX_REDIRECTS} times")

    async def _get(self, url: httpx2.URL) -> bytes | str:
        """Return what one address replies: a body, or where it redirects to."""
        self._check_host(url)
        ip = await self._resolve(url)
        request = httpx2.Request(
            "GET",
            url.copy_with(host=str(ip)),
            headers={"Host": url.netloc.decode("ascii"), "Accept": "image/*", "Accept-Encoding": "identity"},
            extensions={"sni_hostname": _host(url)},  # what the certificate must be for
        )
        # a transport and no client: that has cookies, and takes a proxy from the environment
        assert self._ssl_context is not None
        async with httpx2.AsyncHTTPTransport(verify=self._ssl_context, trust_env=False) as transport:
            response = await transport.handle_async_request(request)
            if response.status_code in REDIRECTS and "location" in response.headers:
                return response.headers["location"]
            if response.status_code != 200:
                raise _FailedError(f"answered with status {response.status_code}")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise _FailedError("answered with a compressed body, which was not asked for")
            body, most = bytearray(), self._limits.max_address_bytes
            async for part in response.aiter_raw():
                body += part
                if len(body) > most:
                    raise _FailedError(f"gave more than {most} bytes, the most that is taken")
            return bytes(body)

    def _check_host(self, url: httpx2.URL) -> None:
        """Raise unless the list has the host and port of `url`."""
        if url.scheme not in DEFAULT_PORTS:
            raise _RefusedError("the address of a picture must begin with http:// or https://")
        if url.userinfo:
            raise _RefusedError("the address of a picture may not have a user name or a password")
        host, port = _host(url), DEFAULT_PORTS[url.scheme] if url.port is None else url.port
        if not any(entry.takes(url.scheme, host, port) for entry in self._allowed):
            raise _RefusedError(
                f"pictures are not taken from {url.netloc.decode('ascii')[:100]!r}: send the picture itself,"
                " as base64 data, or have the host listed with --allow-address"
            )

    async def _resolve(self, url: httpx2.URL) -> IPv4Address | IPv6Address:
        """Return the IP address to connect to. All that the name has must be public or listed."""
        host = _host(url)
        literal = _ip(host)
        ips = await resolve(host) if literal is None else [literal]
        networks = [entry.network for entry in self._allowed if entry.network is not None]
        for ip in ips:
            if not is_public(ip) and not any(ip in network for network in networks):
                raise _RefusedError(
                    f"{host!r} is not on the public Internet: its IP address too must be listed with"
                    " --allow-address"
                )
        return ips[0]


async def resolve(host: str) -> list[IPv4Address | IPv6Address]:
    """Return the IP addresses of a name, those first that are best to reach. OSError where there are none."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [ip_address(address[0]) for *_, address in found]


def _host(url: httpx2.URL) -> str:
    """Return the host in ASCII and lower case, as a resolver takes it."""
    return url.raw_host.decode("ascii")


def _ip(host: str) -> IPv4Address | IPv6Address | None:
    """Return the IP address that `host` spells, in the usual spelling; None for a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def _network(text: str) -> IPv4Network | IPv6Network | None:
    """Return the network, or the IP address as one, that `text` spells; None if it is another thing."""
    try:
        return ip_network(text)
    except ValueError:
        return None

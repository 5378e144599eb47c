"""Requests that no honest client sends: what `benchmarks.hostile` asks of the service, kind by kind.

Each kind says how its requests may end. An outcome is a status with the error's code where there is one
(`400 bad_picture`), more of them where one connection got several (`200, 400`), `closed` where the service
closed the connection without a reply, `left` where the client went away, and `no reply`.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from random import Random

from benchmarks.hostile_bodies import (
    NO_PICTURES,
    bombs,
    cut_file,
    deep_json,
    enormous_prompts,
    many_parts,
    saved_picture,
    schema_bombs,
    wrong_numbers,
    wrong_text,
    wrong_types,
)
from benchmarks.hostile_target import CHAT, PATIENCE, SECRET, Target, user

REFUSED = r"4\d\d( \w+)?"
BUSY = r"429 queue_full|503 (busy|out_of_time)"


def smuggling(target: Target) -> list[bytes]:
    """Return requests that a proxy and the service might read differently, with another request inside."""
    inner = target.request("/v1/models", method="GET").decode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {target.key}\r\n"
    size = f"Content-Length: {len(inner) + 5}\r\n"
    ends = f"0\r\n\r\n{inner}"
    heads = [
        f"{size}Transfer-Encoding: chunked\r\n\r\n{ends}",
        f"Transfer-Encoding: chunked\r\n{size}\r\n{ends}",
        f"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n{ends}",
        f"Transfer-Encoding: xchunked\r\n{size}\r\n{ends}",
        f"Transfer-Encoding : chunked\r\n{size}\r\n{ends}",
        f"Transfer-Encoding:\x0bchunked\r\n{size}\r\n{ends}",
        f" Transfer-Encoding: chunked\r\n{size}\r\n{ends}",
        f"Content-Length: 5\r\n{size}\r\n{ends}",
        f"Content-Length: +5\r\n\r\n{ends}",
        f"Content-Length: -1\r\n\r\n{ends}",
        f"Content-Length: 5, 6\r\n\r\n{ends}",
        f"Content-Length: 0x5\r\n\r\n{ends}",
        f"Content-Length: {'9' * 100}\r\n\r\n{ends}",
        "Transfer-Encoding: chunked\r\n\r\n-1\r\n" + inner,
        "Transfer-Encoding: chunked\r\n\r\n" + "f" * 40 + "\r\n" + inner,
        "Transfer-Encoding: chunked\r\n\r\n5;" + "x" * 100_000 + "\r\n" + inner,
        f"A: b\r\n {inner}\r\n\r\n",
        f"A: b\0\r\n{size}\r\n{ends}",
    ]
    return [(head + rest).encode("latin-1") for rest in heads]


def wrong_requests(target: Target) -> list[bytes]:
    """Return what is hardly HTTP, methods and versions that there are not, and huge heads."""
    key = f"Authorization: Bearer {target.key}"
    many = "".join(f"X-{n}: y\r\n" for n in range(20_000))
    lines = [
        "GET /v1/models HTTP/9.9\r\n\r\n", "GET /v1/models\r\n\r\n", "\r\n" * 1000 + "x", "\0" * 1000,
        "\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + "a" * 200, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        f"GET /v1/models HTTP/1.1\r\nHost: a\r\n{key}\r\nX: {'y' * 1_000_000}\r\n\r\n",
        f"GET /v1/models HTTP/1.1\r\nHost: a\r\n{key}\r\n{many}\r\n",
        f"GET /{'a' * 1_000_000} HTTP/1.1\r\nHost: a\r\n{key}\r\n\r\n",
        f"GET /v1/models?{'a=b&' * 100_000} HTTP/1.1\r\nHost: a\r\n{key}\r\n\r\n",
        f"GET /v1/models HTTP/1.1\r\n{key}\r\n\r\n",
        f"GET /v1/models HTTP/1.1\r\nHost: a\r\nHost: b\r\n{key}\r\n\r\n",
    ]  # fmt: skip
    return [line.encode("latin-1") for line in lines]


def wrong_methods(target: Target) -> list[bytes]:
    """Return methods that the routes have not."""
    asked = [("GET", CHAT), ("PUT", CHAT), ("DELETE", "/v1/models"), ("TRACE", "/"), ("OPTIONS", "*"),
             ("CONNECT", "127.0.0.1:22"), ("BREW", "/v1/models"), ("POST", "/metrics"),
             ("PATCH", "/health")]  # fmt: skip
    return [target.request(path, method=method) for method, path in asked]


def paths(target: Target) -> list[bytes]:
    """Return paths out of the service's routes and into the machine's files."""
    asked = ["/../../../../etc/passwd", "/v1/models/../../../etc/passwd", "/v1/models/..%2f..%2fetc%2fpasswd",
             "/v1/models/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/etc/passwd%00.jpg", "/v1/models/%ff%fe",
             "/v1/models/" + "a/" * 5000, "http://169.254.169.254/latest/", "/..\\..\\windows\\win.ini",
             "/docs", "/v1/models/%00", "/.git/config", "/v1/models/" + "%25" * 3000,
             "/v1/models/model.safetensors", "/v1/%6dodels/file:///etc/passwd",
             "/static/../llava/serve/api.py"]  # fmt: skip
    return [target.request(path, method="GET") for path in asked]


def wrong_keys(target: Target) -> list[bytes]:
    """Return keys that are not the service's."""
    keys = ["", "Bearer", "Bearer ", f"Bearer {target.key[:-1]}", f"Bearer {target.key}x",
            f"bearer{target.key}", f"Basic {target.key}", target.key, f"Bearer  {target.key}",
            "Bearer \udcff\udcfe",
            "Bearer " + "a" * 60_000, f"Bearer {target.key.upper()}", "Bearer null", "Bearer é"]  # fmt: skip
    return [target.request("/v1/models", method="GET", Authorization=key) for key in keys]


def wrong_content_types(target: Target) -> list[bytes]:
    """Return bodies that are not of the type that is stated."""
    body = target.chat().partition(b"\r\n\r\n")[2]
    kinds = ["text/plain", "application/xml", "application/x-www-form-urlencoded", "multipart/form-data", "",
             "a" * 9000, "multipart/form-data; boundary=" + "b" * 9000, "image/png"]  # fmt: skip
    requests = [target.request(CHAT, body, Content_Type=kind) for kind in kinds]
    bomb = gzip.compress(bytes(50_000_000))
    return [*requests, target.request(CHAT, bomb, Content_Encoding="gzip"), target.request(CHAT, bomb)]


def multipart(target: Target) -> list[bytes]:
    """Return forms whose boundaries are broken, that have endless fields, and names of files out of place."""
    file = b'Content-Disposition: form-data; name="Image"; filename="../../../../etc/cron.d/x"\r\n\r\n'
    part = b"--b\r\n" + file + saved_picture("PNG") + b"\r\n"
    field = b'--b\r\nContent-Disposition: form-data; name="Hash"\r\n\r\nx\r\n'
    bodies = [
        part, part + b"--b", part[:200], b"--c\r\n" + file, b"--b--\r\n", b"--b\r\n\r\n",
        part * 2 + b"--b--\r\n",
        field * 50_000 + b"--b--\r\n", (part * 1000) + b"--b--\r\n", b"--b\r\n" + b"X: y\r\n" * 100_000,
        b"--b\r\nContent-Disposition: form-data; name=" + b"n" * 10**6 + b"\r\n\r\n\r\n--b--\r\n",
        b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n", b"\0" * 1000,
        field + b'--b\r\nContent-Disposition: form-data; name="Id"\r\n\r\n\xff\xfe\r\n' + part + b"--b--\r\n",
    ]  # fmt: skip
    return [
        target.request(path, body, Content_Type=kind)
        for body in bodies
        for path in ("/getAltText", "/getAltTexts", "/getBestPictures", "/config")
        for kind in ("multipart/form-data; boundary=b", "multipart/form-data; boundary=")
    ]


async def endless_chunks(target: Target) -> str:
    """Send a chunked body that does not end."""

    async def pieces() -> AsyncIterator[bytes]:
        yield target.request(CHAT, method="PUT", Transfer_Encoding="chunked").replace(b"PUT", b"POST", 1)
        chunk = b"%x\r\n" % 2**20 + b" " * 2**20 + b"\r\n"
        while True:
            yield chunk

    return await target.send(pieces())


async def slow_head(target: Target, rng: Random) -> str:
    """Send a head that does not end, or nothing at all, or a head behind an answered request."""

    async def pieces() -> AsyncIterator[bytes]:
        start = rng.randrange(3)
        if start == 1:
            yield target.request("/health", method="GET", close=False)
        if start < 2:
            yield b"GET /v1/models HTTP/1.1\r\nHost: a\r\n"
            while True:
                await asyncio.sleep(0.3)
                yield b"X: y\r\n"
        await asyncio.sleep(PATIENCE)

    return await target.send(pieces())


async def slow_body(target: Target) -> str:
    """Send a body byte by byte."""
    request = target.chat()
    begin = request.index(b"\r\n\r\n") + 4

    async def pieces() -> AsyncIterator[bytes]:
        yield request[:begin]
        for byte in request[begin:]:
            await asyncio.sleep(0.3)
            yield bytes([byte])

    return await target.send(pieces())


async def cut_body(target: Target) -> str:
    """Say that the body is longer than it is, and go."""
    request = target.chat()
    return await target.leave(request.replace(b"Content-Length: ", b"Content-Length: 9"))


async def vanish(target: Target, rng: Random) -> str:
    """Go in mid-stream, or before the answer begins."""
    request = target.chat(
        stream=rng.random() < 0.7, max_tokens=200, messages=[user(f"{SECRET} {rng.random()}")]
    )
    return await target.leave(request, rng.choice([0, 0, 20, 400]))


async def unread(target: Target, rng: Random) -> str:
    """Ask for a long answer, and do not read it for a while."""
    _, writer = await asyncio.open_connection("127.0.0.1", target.port, limit=2**10)
    text = f"{SECRET} {rng.random()}"
    writer.write(
        target.chat(stream=True, max_tokens=100, logprobs=True, top_logprobs=20, messages=[user(text)])
    )
    await asyncio.sleep(3)
    writer.transport.abort()
    return "left"


async def pipelined(target: Target) -> str:
    """Send many requests at once on a connection."""
    return await target.send(
        target.request("/v1/models", method="GET", close=False) * 49
        + target.request("/v1/models", method="GET")
    )


def bad_addresses(target: Target) -> list[bytes]:
    """Return addresses that may not be fetched from, and those of our server that lead there."""
    trap = f"http://127.0.0.1:{target.trap_port}"
    urls = ["http://169.254.169.254/latest/meta-data/", f"http://127.0.0.1:{target.port}/metrics",
            f"http://localhost:{target.trap_port}/photo", f"http://2130706433:{target.trap_port}/photo",
            f"http://[::ffff:127.0.0.1]:{target.trap_port}/photo", f"http://0x7f.1:{target.trap_port}/photo",
            f"http://x:y@127.0.0.1:{target.trap_port}/photo", "http://10.0.0.1/", "http://[::1]:22/",
            "file:///etc/passwd", "gopher://127.0.0.1:1/_x", "ftp://a/b", "http://", "\0", "/etc/passwd",
            "http://" + "a" * 100_000, "data:image/png,abc", "data:;base64," + "A" * 1001, "DATA:,",
            "data:image/png;base64,%%%", f"{trap}/to-metadata", f"{trap}/to-service", f"{trap}/to-file",
            f"{trap}/loop", f"{trap}/endless", f"{trap}/drip", f"{trap}/silent", f"{trap}/bomb",
            f"{trap}/gzip", f"{trap}/missing"]  # fmt: skip
    return [target.look(url) for url in urls]


async def trap_reply(service_port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reply as a hostile server does: redirect to where the service may not go, drip, and never end."""

    def redirect(to: str) -> bytes:
        return f"HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode()

    def whole(body: bytes, more: str = "") -> bytes:
        return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body

    replies = {
        "/photo": whole(saved_picture("PNG")),
        "/to-metadata": redirect("http://169.254.169.254/latest/meta-data/iam/security-credentials/"),
        "/to-service": redirect(f"http://127.0.0.1:{service_port}/metrics"),
        "/to-file": redirect("file:///etc/passwd"),
        "/loop": redirect("/loop"),
        "/bomb": whole(bombs()[0]),
        "/gzip": whole(gzip.compress(bytes(10**8)), "Content-Encoding: gzip\r\n"),
    }
    with suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError, asyncio.CancelledError):
        async with asyncio.timeout(20):
            path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
            if path in replies:
                writer.write(replies[path])
            elif path in ("/drip", "/endless", "/silent"):
                writer.write(b"" if path == "/silent" else b"HTTP/1.1 200 OK\r\n\r\n")
                while True:
                    writer.write({"/drip": b"x", "/endless": bytes(2**16), "/silent": b""}[path])
                    await writer.drain()
                    await asyncio.sleep(0 if path == "/endless" else 0.1)
            else:
                writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
    writer.close()


# --- all of them ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A kind of hostile request: how it is sent, how it may end, and how many there are among the others."""

    name: str
    send: Callable[[Target, Random], Awaitable[str]]
    may_end: str
    """A regular expression for the outcome."""
    weight: int = 3


def one_of(variants: Callable[[Target], list[bytes]]) -> Callable[[Target, Random], Awaitable[str]]:
    """Send one of some requests."""
    return lambda target, rng: target.send(rng.choice(variants(target)))


KINDS = [
    Kind("decompression bombs", lambda t, r: t.send(t.look_at(r.choice(bombs()))), r"200|400 bad_picture"),
    Kind("cut and changed pictures", lambda t, r: t.send(t.look_at(cut_file(r))), r"200|400 bad_picture", 6),
    Kind(
        "files that are no pictures",
        lambda t, r: t.send(t.look_at(r.choice(NO_PICTURES))),
        r"400 bad_picture",
    ),
    Kind("deep JSON", one_of(deep_json), rf"200|{REFUSED}"),
    Kind("no UTF-8, no JSON", one_of(wrong_text), rf"200|{REFUSED}", 6),
    Kind("wrong types", one_of(wrong_types), rf"200|{REFUSED}", 9),
    Kind("NaN, negative, huge options", one_of(wrong_numbers), rf"200|{REFUSED}", 4),
    Kind("a million parts", one_of(many_parts), rf"200|{REFUSED}", 1),
    Kind("enormous prompts", one_of(enormous_prompts), rf"200|{REFUSED}", 1),
    Kind("JSON schemas", one_of(schema_bombs), rf"200|{REFUSED}"),
    Kind("forbidden addresses, redirects", one_of(bad_addresses), r"400 (address_\w+|bad_picture)", 6),
    Kind("wrong keys", one_of(wrong_keys), r"401 invalid_api_key|400"),
    Kind("wrong content types", one_of(wrong_content_types), rf"200|{REFUSED}"),
    Kind("broken forms", one_of(multipart), rf"200|{REFUSED}", 4),
    Kind("path traversal", one_of(paths), r"40[0-9]( \w+)?"),
    Kind("wrong methods", one_of(wrong_methods), r"40[0-9]( \w+)?"),
    Kind("wrong HTTP, huge heads", one_of(wrong_requests), rf"closed|200|{REFUSED}"),
    # at most one reply: the request inside is never answered
    Kind("request smuggling", lambda t, r: t.send(r.choice(smuggling(t)), linger=1), rf"closed|{REFUSED}", 4),
    Kind(
        "endless chunked bodies",
        lambda t, r: endless_chunks(t),
        r"closed|413 request_too_large|408 too_slow",
        1,
    ),
    Kind("slow heads", slow_head, r"closed|200|408( \w+)?", 1),
    Kind("slow bodies", lambda t, r: slow_body(t), r"408 too_slow", 1),
    Kind("cut bodies", lambda t, r: cut_body(t), r"left", 2),
    Kind("clients that vanish", vanish, r"left", 6),
    Kind("clients that do not read", unread, r"left", 1),
    Kind("fifty requests in a piece", lambda t, r: pipelined(t), r"200(, 200){49}", 1),
]

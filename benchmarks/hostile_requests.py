"""Requests that no honest client sends: what `benchmarks.hostile` asks of the service, kind by kind.

Each kind says how its requests may end. An outcome is a status with the error's code where there is one
(`400 bad_picture`), more of them where one connection got several (`200, 400`), `closed` where the service
closed the connection without a reply, `left` where the client went away, and `no reply`.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import re
import struct
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from random import Random
from typing import Any

from PIL import Image

PATIENCE = 60.0  # seconds for a reply
SECRET = "hostile-7f3a"  # in each question: no log may have it
CHAT = "/v1/chat/completions"
REFUSED = r"4\d\d( \w+)?"
BUSY = r"429 queue_full|503 \w+"
Pieces = bytes | AsyncIterator[bytes]


@dataclass(frozen=True)
class Target:
    """The service that is asked, and a server of ours whose address it may fetch from."""

    port: int
    key: str
    model: str
    trap_port: int

    async def send(self, pieces: Pieces, *, linger: float = PATIENCE) -> str:
        """Send bytes on a connection of their own; returns how it ended.

        Args:
            pieces: What is sent, while the reply is read.
            linger: How long to wait for more after the first bytes of the reply. The connection is read to
                its end, for which most requests ask (`Connection: close`).
        """
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**24)
        sending = asyncio.create_task(_write(writer, pieces))
        data = b""
        try:
            while part := await asyncio.wait_for(reader.read(2**20), linger if data else PATIENCE):
                data += part
        except TimeoutError:
            if not data:
                return "no reply"
        except ConnectionError:
            pass
        finally:
            sending.cancel()
            writer.transport.abort()
        return outcome(data)

    async def leave(self, data: bytes, read: int = 0) -> str:
        """Send bytes, read some of the reply, and go."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            await writer.drain()
            if read:
                await asyncio.wait_for(reader.readexactly(read), PATIENCE)
        except (ConnectionError, asyncio.IncompleteReadError):
            return "closed"
        finally:
            writer.transport.abort()
        return "left"

    def request(
        self, path: str, body: bytes = b"", method: str = "POST", close: bool = True, **headers: str
    ) -> bytes:
        """Return a request; underscores in the names of headers stand for hyphens."""
        fields = {"Host": f"127.0.0.1:{self.port}", "Authorization": f"Bearer {self.key}"}
        if close:
            fields["Connection"] = "close"
        if body or method == "POST":
            fields |= {"Content-Length": str(len(body)), "Content-Type": "application/json"}
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        head = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        return "\r\n".join([*head, "", ""]).encode("utf-8", "surrogateescape") + body

    def chat(self, body: Any = None, **changes: Any) -> bytes:
        """Return a request for an answer: of `body`, or of an ordinary one with some fields changed."""
        if body is None:
            body = {"model": self.model, "max_tokens": 8, "messages": [user(SECRET)]} | changes
        return self.request(CHAT, body if isinstance(body, bytes) else json.dumps(body).encode())

    def look(self, url: str) -> bytes:
        """Return a request about the picture at `url`."""
        part = {"type": "image_url", "image_url": {"url": url}}
        return self.chat(messages=[user([part, {"type": "text", "text": SECRET}])])

    def look_at(self, picture: bytes) -> bytes:
        """Return a request about a picture that comes with it."""
        return self.look("data:image/png;base64," + base64.b64encode(picture).decode())


def user(content: Any) -> dict[str, Any]:
    """Return a user's message."""
    return {"role": "user", "content": content}


async def _write(writer: asyncio.StreamWriter, pieces: Pieces) -> None:
    with suppress(ConnectionError):
        if isinstance(pieces, bytes):
            writer.write(pieces)
            await writer.drain()
            return
        async for piece in pieces:
            writer.write(piece)
            await writer.drain()


def outcome(data: bytes) -> str:
    """Return how a connection ended whose replies are `data`."""
    if not data:
        return "closed"
    statuses = re.findall(rb"HTTP/1\.1 (\d{3}) ", data)
    code = re.search(rb'"code": ?"(\w+)"', data)
    return ", ".join(status.decode() for status in statuses) + (f" {code[1].decode()}" if code else "")


# --- pictures ------------------------------------------------------------------------------------------


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, *chunks: bytes, rows: bytes = b"") -> bytes:
    header = _png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    image = _png_chunk(b"IDAT", zlib.compress(rows or bytes((1 + 3 * width) * height)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + image + _png_chunk(b"IEND", b"")


def _saved(name: str, size: tuple[int, int] = (64, 48), **options: Any) -> bytes:
    file = BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(file, name, **options)
    return file.getvalue()


@cache
def bombs() -> list[bytes]:
    """Return small files that decode to much: by their stated size, their frames or their text."""
    zeros = zlib.compress(bytes(200_000_000), 9)
    frames = [Image.new("P", (2000, 2000), n % 7) for n in range(60)]
    gif = BytesIO()
    frames[0].save(gif, "GIF", save_all=True, append_images=frames[1:])
    jpeg = bytearray(_saved("JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 65500, 65500)
    bmp = bytearray(_saved("BMP"))
    bmp[18:26] = struct.pack("<ii", 60_000, 60_000)
    tiff = bytearray(_saved("TIFF"))
    for tag in (256, 257):  # width and length
        at = tiff.index(
            struct.pack("<HH", tag, 4) if struct.pack("<HH", tag, 4) in tiff else struct.pack("<HH", tag, 3)
        )
        tiff[at : at + 12] = struct.pack("<HHII", tag, 4, 1, 100_000)
    return [
        _png(50_000, 50_000, rows=bytes(1_000_000)),
        _png(2**31 - 1, 2**31 - 1, rows=b"\0"),
        _png(5000, 5000),  # 25 million pixels, of 75 kB: above the limit that is set here
        _png(64, 48, _png_chunk(b"zTXt", b"Comment\0\0" + zeros)),
        _png(64, 48, _png_chunk(b"iCCP", b"profile\0\0" + zeros)),
        _png(64, 48, _png_chunk(b"iTXt", b"Comment\0\1\0\0\0" + zeros)),
        b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0) + bytes(6) + gif.getvalue()[-500:],
        gif.getvalue(),
        bytes(jpeg),
        bytes(bmp),
        bytes(tiff),
        b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(200),
        b"P6 100000 100000 255\n" + bytes(100),
        b"II*\0\x08\0\0\0\xff\xff" + bytes(range(256)) * 40,
    ]


def cut_file(rng: Random) -> bytes:
    """Return the beginning of a picture, or one with some bytes changed."""
    data = bytearray(_saved(rng.choice(["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "PPM"])))
    if rng.random() < 0.5:
        return bytes(data[: rng.randrange(len(data))])
    for _ in range(rng.randint(1, 20)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


NO_PICTURES = [
    b"", b"\0", b"hello", b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\nshowpage\n", b"%PDF-1.7\n",
    b"PK\x03\x04" + bytes(99), b"\x7fELF" + bytes(99), b"<!DOCTYPE html><p>", gzip.compress(bytes(10**6)),
    b"push graphic-context\nimage over 0,0 0,0 'https://127.0.0.1/x'\n", b"\xff\xd8\xff" + bytes(9),
]  # fmt: skip


# --- bodies --------------------------------------------------------------------------------------------


def deep_json(target: Target) -> list[bytes]:
    """Return bodies that are nested deeper than any parser's stack."""
    bodies = [b"[" * 10**6, b'{"a":' * 10**5, b"[" * 10**5 + b"]" * 10**5]
    deep: Any = "x"
    for _ in range(900):
        deep = [deep]
    ordinary = json.dumps({"model": target.model, "max_tokens": 4, "messages": [user(SECRET)]})[:-1]
    inner = "[" * 5000 + "]" * 5000
    bodies += [f'{ordinary}, "{name}": {inner}}}'.encode() for name in ("metadata", "messages", "tools")]
    return [target.chat(body) for body in bodies] + [target.chat(messages=[user(deep)])]


def wrong_text(target: Target) -> list[bytes]:
    """Return bodies whose text is none: no UTF-8, no JSON, halves of characters, control characters."""
    ordinary = json.dumps({"model": target.model, "messages": [user("TEXT")], "max_tokens": 4}).encode()
    texts = [b"\xff\xfe", b"\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\\ud800", b"\\udfff\\ud800",
             b"\\u0000", b"\x00", b"\\x41", b"\n"]  # fmt: skip
    bodies = [ordinary.replace(b"TEXT", text) for text in texts]
    bodies += [ordinary.decode().encode("utf-16"), b"\xef\xbb\xbf" + ordinary, ordinary[:-1], ordinary * 2,
               b"", b"null", b"{}", b"[]", b'"', b"{" * 2, ordinary.replace(b"model", b"\\ud800")]  # fmt: skip
    requests = [target.chat(body) for body in bodies]
    requests += [target.chat(**{field: "\ud800"}) for field in ("stop", "question_id", "model")]
    requests.append(target.chat(choices=["\ud800", "b"]))
    requests.append(target.chat(messages=[{"role": "system", "content": "\udcff"}, user("a")]))
    return requests


def wrong_types(target: Target) -> list[bytes]:
    """Return bodies with values of other types than the fields have."""
    values = [None, True, 5, -1, 1.5, 10**400, "x", "", [], [[]], {}, {"a": 1}, [None], ["a", 1]]
    fields = ["model", "messages", "max_tokens", "n", "temperature", "stop", "seed", "stream", "choices",
              "response_format", "stream_options", "logprobs", "top_logprobs", "question_id"]  # fmt: skip
    requests = [target.chat(**{field: value}) for field in fields for value in values]
    contents = [None, 5, {}, [5], [None], [{"type": "text"}], [{"type": "video"}], [{"type": "image_url"}],
                [{"type": "image_url", "image_url": "x"}],
                [{"type": "image_url", "image_url": {"url": 5}}]]  # fmt: skip
    requests += [target.chat(messages=[user(content)]) for content in contents]
    roles = [None, 5, "root", "", "assistant", "tool", "\0"]
    return requests + [target.chat(messages=[{"role": role, "content": "a"}]) for role in roles]


def wrong_numbers(target: Target) -> list[bytes]:
    """Return bodies with options that are out of range, or no numbers at all."""
    values = [
        "NaN",
        "Infinity",
        "-Infinity",
        "-1",
        "1e999",
        "-0.5",
        "1e-400",
        "99999999999999999999",
        "0x10",
        "007",
    ]
    fields = ["temperature", "top_p", "max_tokens", "n", "seed", "top_logprobs", "max_completion_tokens"]
    ordinary = json.dumps({"model": target.model, "messages": [user(SECRET)], "max_tokens": 4})[:-1]
    return [target.chat(f'{ordinary}, "{field}": {value}}}'.encode()) for field in fields for value in values]


@cache
def many_parts(target: Target) -> list[bytes]:
    """Return bodies with a million parts, messages, fields, answers and the like."""
    million = 10**6
    part, message = '{"type":"text","text":""}', '{"role":"user","content":""}'
    head = f'{{"model":"{target.model}","max_tokens":4,'
    bodies = [
        f'{head}"messages":[{{"role":"user","content":[{",".join([part] * million)}]}}]}}',
        f'{head}"messages":[{",".join([message] * million)}]}}',
        f'{head}"messages":[{message}],"choices":[{",".join(map(json.dumps, map(str, range(million))))}]}}',
        f'{head}"messages":[{message}],{",".join(f"{json.dumps(str(n))}:0" for n in range(million))}}}',
        f'{head}"messages":[{",".join(["0"] * million)}]}}',
    ]
    return [target.chat(body.encode()) for body in bodies]


@cache
def enormous_prompts(target: Target) -> list[bytes]:
    """Return questions that are longer than any context."""
    texts = ["word " * 2_000_000, "x" * 10_000_000, "é🦔" * 500_000, "<image>\n" * 200_000,
             "\n" * 5_000_000, " " * 5_000_000, "</s>" * 500_000, "a\u0301" * 1_000_000]  # fmt: skip
    requests = [target.chat(messages=[user(text)]) for text in texts]
    requests.append(
        target.chat(messages=[user("a"), {"role": "assistant", "content": "b"}] * 250 + [user("c")])
    )
    requests.append(target.chat(choices=[f"{n} " * 400 for n in range(200)]))
    requests.append(target.chat(stop=["x" * 1_000_000] * 16))
    return requests


def schema_bombs(target: Target) -> list[bytes]:
    """Return JSON schemas that are wrong, endless, or would make an enormous grammar."""
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(150):
        deep = {"type": "object", "properties": {"a": deep}, "required": ["a"]}
    schemas: list[Any] = [
        deep,
        {"$ref": "#"},
        {"$ref": "http://127.0.0.1/schema.json"},
        {"$ref": "file:///etc/passwd"},
        {"enum": [str(n) * 20 for n in range(50_000)]},
        {"type": "string", "pattern": "(a+)+$" + "b?" * 5000},
        {"type": "string", "pattern": "a{1000}{1000}{1000}"},
        {"type": "string", "pattern": "(["},
        {"type": "string", "minLength": 10**9},
        {"type": "array", "minItems": 10**9, "items": {"type": "integer"}},
        {"allOf": [{"anyOf": [{"type": "integer", "minimum": n}, {"type": "string"}]} for n in range(200)]},
        {"type": "no such type"},
        {"properties": {str(n): {"type": "integer"} for n in range(20_000)}},
    ]
    return [
        target.chat(response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema}})
        for schema in schemas
    ]


# --- HTTP ----------------------------------------------------------------------------------------------


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
             "/v1/models/model.safetensors", "/v1/%6dodels/file:///etc/passwd", "/static/../llava/serve/api.py"]  # fmt: skip
    return [target.request(path, method="GET") for path in asked]


def wrong_keys(target: Target) -> list[bytes]:
    """Return keys that are not the service's."""
    keys = ["", "Bearer", "Bearer ", f"Bearer {target.key[:-1]}", f"Bearer {target.key}x",
            f"bearer{target.key}", f"Basic {target.key}", target.key, f"Bearer  {target.key}", "Bearer \udcff\udcfe",
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
    part = b"--b\r\n" + file + _saved("PNG") + b"\r\n"
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
            "file:///etc/passwd", "gopher://127.0.0.1:1/_x", "http://10.0.0.1/", "http://[::1]:22/",
            "ftp://a/b", f"http://x:y@127.0.0.1:{target.trap_port}/photo", "http://", "http://" + "a" * 100_000,
            "\0", "/etc/passwd", "data:image/png,abc", "data:;base64," + "A" * 1001, "data:image/png;base64,%%%", "DATA:,",
            f"{trap}/to-metadata", f"{trap}/to-service", f"{trap}/to-file", f"{trap}/loop", f"{trap}/endless",
            f"{trap}/drip", f"{trap}/silent", f"{trap}/bomb", f"{trap}/gzip", f"{trap}/missing"]  # fmt: skip
    return [target.look(url) for url in urls]


async def trap_reply(service_port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reply as a hostile server does: redirect to where the service may not go, drip, and never end."""

    def redirect(to: str) -> bytes:
        return f"HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode()

    def whole(body: bytes, more: str = "") -> bytes:
        return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body

    replies = {
        "/photo": whole(_saved("PNG")),
        "/to-metadata": redirect("http://169.254.169.254/latest/meta-data/iam/security-credentials/"),
        "/to-service": redirect(f"http://127.0.0.1:{service_port}/metrics"),
        "/to-file": redirect("file:///etc/passwd"),
        "/loop": redirect("/loop"),
        "/bomb": whole(bombs()[0]),
        "/gzip": whole(gzip.compress(bytes(10**8)), "Content-Encoding: gzip\r\n"),
    }
    with suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError):
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
    Kind("JSON schemas", one_of(schema_bombs), rf"200|{REFUSED}|503 \w+"),
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
        "endless chunked bodies", lambda t, r: endless_chunks(t), r"closed|413 request_too_large|503 busy", 1
    ),
    Kind("slow heads", slow_head, r"closed|200|408( \w+)?", 1),
    Kind("slow bodies", lambda t, r: slow_body(t), r"408 too_slow", 1),
    Kind("cut bodies", lambda t, r: cut_body(t), r"left", 2),
    Kind("clients that vanish", vanish, r"left", 6),
    Kind("clients that do not read", unread, r"left", 1),
    Kind("fifty requests in a piece", lambda t, r: pipelined(t), r"200(, 200){49}", 1),
]

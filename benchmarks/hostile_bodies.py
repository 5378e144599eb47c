"""Pictures and JSON of `benchmarks.hostile` that no honest client sends."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from functools import cache
from io import BytesIO
from random import Random
from typing import Any

from PIL import Image

from benchmarks.hostile_target import SECRET, Target, user

# --- pictures ------------------------------------------------------------------------------------------


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, *chunks: bytes, rows: bytes = b"") -> bytes:
    header = _png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    image = _png_chunk(b"IDAT", zlib.compress(rows or bytes((1 + 3 * width) * height)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + image + _png_chunk(b"IEND", b"")


def saved_picture(name: str, size: tuple[int, int] = (64, 48), **options: Any) -> bytes:
    """Return an ordinary picture's file."""
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
    jpeg = bytearray(saved_picture("JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 65500, 65500)
    bmp = bytearray(saved_picture("BMP"))
    bmp[18:26] = struct.pack("<ii", 60_000, 60_000)
    tiff = bytearray(saved_picture("TIFF"))
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
    data = bytearray(saved_picture(rng.choice(["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "PPM"])))
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
               b"", b"null", b"{}", b"[]", b'"', b"{{",
               ordinary.replace(b"model", b"\\ud800")]  # fmt: skip
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

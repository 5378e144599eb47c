"""Pictures out of requests."""

from __future__ import annotations

import asyncio
import base64
from io import BytesIO

import pytest
import torch

from llava.processing.vision import Pixels
from llava.serve.http import pictures
from llava.serve.http.errors import ApiError
from llava.serve.http.pictures import PreparedPictures, decode_picture, file_digest, read_data_url
from tests.support.small_model import image


def png(seed: int, size: tuple[int, int] = (20, 10)) -> bytes:
    buffer = BytesIO()
    image(seed, size).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_picture_that_many_ask_for_is_prepared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: list[bytes] = []

    async def prepare(data: bytes, alone: bool) -> Pixels:
        prepared.append(data)
        await asyncio.sleep(0.01)
        if data == b"bad":
            raise ApiError(400, "no picture")
        return Pixels(torch.full((1, 3, 4, 4), float(data[0])), (4, 4), alone)

    async def get(data: bytes, alone: bool = True) -> Pixels:
        return await made.get(data, file_digest(data), alone)

    async def ask() -> None:
        found = await asyncio.gather(*[get(b"a") for _ in range(5)], get(b"b"))
        assert prepared == [b"a", b"b"] and found[0] is found[4]
        assert not (await get(b"a", alone=False)).alone and len(prepared) == 3
        gone = asyncio.ensure_future(get(b"c"))
        await asyncio.sleep(0)
        waiting = asyncio.ensure_future(get(b"c"))
        await asyncio.sleep(0)
        gone.cancel()
        assert (await waiting).patches[0, 0, 0, 0] == ord("c") and prepared.count(b"c") == 1
        for _ in range(2):
            with pytest.raises(ApiError):
                await get(b"bad")
        assert prepared.count(b"bad") == 2, "what cannot be read is not kept"
        monkeypatch.setattr(pictures, "MAX_PREPARED_BYTES", 3 * 4 * 3 * 16)
        await get(b"a")
        await get(b"d")  # only the last three are kept, and "a" has just been asked for
        before = len(prepared)
        await get(b"a")
        await get(b"b")
        assert prepared[before:] == [b"b"]

    made = PreparedPictures(prepare)
    asyncio.run(ask())


def test_size_is_checked_before_anything_is_decoded() -> None:
    assert decode_picture(png(1), 200).size == (20, 10)
    with pytest.raises(ApiError, match="20x10 pixels"):
        decode_picture(png(1)[:60], 199)  # cut short behind the header
    with pytest.raises(ApiError, match="damaged or cut short"):
        decode_picture(png(1)[:60], 200)


@pytest.mark.parametrize(
    "url", ["data:image/png,abc", "data:image/png;base64", "data:;base64,a", "data:;base64,§§"]
)
def test_what_is_no_data_url(url: str) -> None:
    with pytest.raises(ApiError):
        read_data_url(url)


def test_a_data_url() -> None:
    assert read_data_url(f"data:image/jpeg;charset=a;base64,{base64.b64encode(png(2)).decode()}") == png(2)

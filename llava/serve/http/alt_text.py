"""The routes of the alt-text service: descriptions of pictures, and the picture that fits a search.

Paths, form fields and results are those that clients of an older service send and expect: its names are kept,
and forms without files may come URL-encoded, as its clients send them.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Form, Response, UploadFile
from fastapi import Request as HttpRequest
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, Json
from starlette.datastructures import UploadFile as ReceivedFile
from starlette.formparsers import MultiPartParser

from llava.inference.requests import Request, Result
from llava.inference.sampling import SamplingOptions
from llava.processing.vision import Pixels
from llava.serve.http.best_picture import (
    PROBABILITY_THAT_FITS,
    SIMILARITY_THAT_FITS,
    TextEncoder,
    fit_request,
    rank,
)
from llava.serve.http.errors import ApiError
from llava.serve.http.many import ManyQuestions
from llava.serve.http.pictures import decode_picture
from llava.serve.http.service import Service

MAX_FIELD_BYTES = 16 * 2**20
"""Of one text field: thousands of descriptions."""

MultiPartParser.spool_max_size = 0  # uploads stay in memory, whatever their size: no file is written


Name = Annotated[str, Form(min_length=1)]


class AltText(BaseModel):
    """A picture's description."""

    Hash: str
    Description: str
    Id: str


class TimedAltText(AltText):
    """A description, the picture's sizes (width, height) as sent and as shown to the model, and seconds."""

    original_size: tuple[int, int]
    resized: tuple[int, int]
    duration: float


class AltTextsForm(BaseModel):
    """Names of pictures, and under all other keys the picture files, in the same order."""

    model_config = ConfigDict(
        extra="allow", json_schema_extra={"additionalProperties": {"type": "string", "format": "binary"}}
    )
    Id: Annotated[list[str], Field(min_length=1, description="One for all, or one a picture.")]
    Hash: Annotated[list[str], Field(min_length=1, description="One a picture.")]


class DescribedPicture(BaseModel):
    """A picture's name and description; what else `getAltText` says of it is passed over."""

    Hash: Annotated[str, Field(min_length=1)]
    Description: str


class BestPictureForm(BaseModel):
    """A search among pictures that were described."""

    userText: Annotated[str, Field(min_length=1, description="The search, in any language.")]
    data: Annotated[
        Json[list[DescribedPicture]],
        Field(examples=['[{"Hash": "a.jpg", "Description": "A hedgehog.", "Id": "me"}]']),
    ]
    details: Annotated[bool, Field(description="Answer with an object instead of the Hash.")] = False


class PictureScore(BaseModel):
    """How well a picture's description fits."""

    Hash: str
    score: float


class BestPictures(BaseModel):
    """The whole answer to a search: `best` holds more than one Hash where they tie, none where none fits."""

    best: list[str]
    scores: Annotated[list[PictureScore], Field(description="Of all pictures, in the order of the request.")]
    least: Annotated[float, Field(description="The score from which a description fits.")]
    scored_by: Annotated[str, Field(description='"embeddings" (cosine) or "model" (probability of yes).')]


class SizeForm(BaseModel):
    """New settings; a field that is absent is set to its default."""

    halve: Annotated[float, Field(gt=0, le=1, description="1 leaves pictures as they are.")] = 0.5
    min_size: Annotated[int, Field(ge=1, le=1_000_000, description="In pixels.")] = 10


class SizeSetting(BaseModel):
    """How pictures are made smaller before the model sees them."""

    halve_rate: float
    min_size: int

    def apply(self, image: Image.Image) -> Image.Image:
        """Scale both sides by the rate, but the shorter one not below `min_size`; nothing is enlarged."""
        rate = min(1.0, max(self.halve_rate, self.min_size / min(image.size)))
        if rate == 1:
            return image
        width, height = (max(1, round(side * rate)) for side in image.size)
        return image.resize((width, height), Image.Resampling.BICUBIC)


@dataclass(frozen=True)
class PreparedPicture:
    """A picture as the model takes it, and its sizes (width, height) before and after scaling."""

    pixels: Pixels
    original_size: tuple[int, int]
    size: tuple[int, int]


class AltTexts:
    """The routes and what they share."""

    def __init__(
        self,
        service: Service,
        prompt: str,
        text_encoder: TextEncoder | None = None,
        least_score: float | None = None,
    ) -> None:
        """Make the routes; `router` is what the application includes.

        Args:
            service: The model.
            prompt: What is asked about each picture.
            text_encoder: Compares a search with descriptions; None to ask the model itself.
            least_score: From which score a description fits; None for what suits the way of scoring.
        """
        self._service = service
        self._prompt = prompt
        self._text_encoder = text_encoder
        default = PROBABILITY_THAT_FITS if text_encoder is None else SIMILARITY_THAT_FITS
        self._least_score = default if least_score is None else least_score
        self._size = SizeSetting(halve_rate=0.5, min_size=10)
        self._many = ManyQuestions(service)
        # half of the service's threads: the pictures of a chat need not wait for those of 500 alt texts
        self._preparing = asyncio.Semaphore(max(1, (os.cpu_count() or 2) // 2))

        most = service.limits.max_uploads
        self.router = APIRouter(
            tags=["alt texts"],
            form_limits={
                "max_files": most,
                "max_fields": 2 * most + 16,  # an Id and a Hash for each
                "max_part_size": MAX_FIELD_BYTES,
            },
        )
        for path, route, extra in (
            ("/getAltText", self.get_alt_text, None),
            ("/getAltTexts", self.get_alt_texts, None),
            ("/getAltText_time", self.get_alt_text_time, None),
            ("/getBestPictures", self.get_best_pictures, _form_schema(BestPictureForm, required=True)),
            ("/config", self.configure, _form_schema(SizeForm, required=False)),
        ):
            self.router.add_api_route(path, route, methods=["POST"], openapi_extra=extra)

    async def get_alt_text(self, Id: Name, Hash: Name, Image: UploadFile) -> list[AltText]:
        """Describe a picture."""
        _, result = await self._describe(Image, f"Hash {Hash!r}")
        return [AltText(Hash=Hash, Description=result.text, Id=Id)]

    async def get_alt_text_time(self, Id: Name, Hash: Name, Image: UploadFile) -> list[TimedAltText]:
        """Describe a picture, and tell how long it took and in which size the model saw it."""
        begin = time.monotonic()
        picture, result = await self._describe(Image, f"Hash {Hash!r}")
        return [
            TimedAltText(
                Hash=Hash,
                Description=result.text,
                Id=Id,
                original_size=picture.original_size,
                resized=picture.size,
                duration=time.monotonic() - begin,
            )
        ]

    async def get_alt_texts(
        self,
        http_request: HttpRequest,
        form: Annotated[AltTextsForm, Form(media_type="multipart/form-data")],
    ) -> list[AltText]:
        """Describe pictures, each by itself: files under any keys, and a Hash for each in the same order."""
        received = (await http_request.form()).multi_items()
        files = [value for _, value in received if isinstance(value, ReceivedFile)]
        for field, values in (("Hash", form.Hash), ("Id", form.Id)):
            if len(values) != len(files) and not (field == "Id" and len(values) == 1):
                message = f"{len(values)} {field} fields came with {len(files)} files; send one for each file"
                raise ApiError(422, message, param=field, code="count_mismatch")

        size = self._size  # one for all, also where it is set anew meanwhile

        async def make(index: int) -> Request:
            name = f"file {index + 1} of {len(files)}, Hash {form.Hash[index]!r}"
            picture = await self._prepare(files[index], name, size)
            return Request(index, self._prompt, [picture.pixels])

        results = await self._many.answer(len(files), make, self._options)
        ids = form.Id * len(files) if len(form.Id) == 1 else form.Id
        return [
            AltText(Hash=name, Description=result.text, Id=id_)
            for name, result, id_ in zip(form.Hash, results, ids, strict=True)
        ]

    async def get_best_pictures(
        self, form: Annotated[BestPictureForm, Form()], response: Response
    ) -> str | BestPictures:
        """Find the picture whose description fits a search: its Hash, the first where several tie (the header
        X-Best-Picture-Ties tells how many do); error 404 `none_fits` where none fits."""
        pictures = form.data
        most = self._service.limits.max_uploads
        if not 1 <= len(pictures) <= most:
            raise ApiError(422, f"data has {len(pictures)} pictures; send 1 to {most}", param="data")
        scores = await self._scores(form.userText, [picture.Description for picture in pictures])
        found = rank(scores, self._least_score)
        if form.details:
            return BestPictures(
                best=[pictures[n].Hash for n in found.best] if found.fits else [],
                scores=[
                    PictureScore(Hash=picture.Hash, score=score)
                    for picture, score in zip(pictures, scores, strict=True)
                ],
                least=self._least_score,
                scored_by="model" if self._text_encoder is None else "embeddings",
            )
        first = found.best[0]
        if not found.fits:
            nearest = f"the nearest, of Hash {pictures[first].Hash!r}, scores {scores[first]:.3f}"
            message = f"none of the {len(pictures)} descriptions fits: {nearest}, below {self._least_score:g}"
            raise ApiError(404, message, param="userText", code="none_fits")
        response.headers["X-Best-Picture-Ties"] = str(len(found.best))
        return pictures[first].Hash

    async def configure(self, form: Annotated[SizeForm, Form()]) -> SizeSetting:
        """Set how pictures are made smaller, for all requests to this process from now on."""
        self._size = SizeSetting(halve_rate=form.halve, min_size=form.min_size)
        return self._size

    @property
    def _options(self) -> SamplingOptions:
        """How descriptions are written: greedily."""
        usual = SamplingOptions.max_new_tokens
        return SamplingOptions(max_new_tokens=min(usual, self._service.limits.max_new_tokens))

    async def _describe(self, file: UploadFile, name: str) -> tuple[PreparedPicture, Result]:
        picture = await self._prepare(file, name, self._size)
        request = Request(0, self._prompt, [picture.pixels])
        return picture, await self._service.answer(request, self._options)

    async def _prepare(self, file: ReceivedFile, name: str, size: SizeSetting) -> PreparedPicture:
        """Decode a file, a few at a time; `name` is how an error names it. What was received is let go."""

        def prepare(data: bytes) -> PreparedPicture:
            image = decode_picture(data, self._service.limits.max_pixels)
            shown = size.apply(image)
            (pixels,) = self._service.live.runner.prepare_images([shown])
            return PreparedPicture(pixels, image.size, shown.size)

        async with self._preparing:
            data = await file.read()
            await file.close()
            try:
                return await self._service.in_thread(lambda: prepare(data))
            except ApiError as error:
                raise ApiError(
                    422, f"{name}: {error.message.removeprefix('the picture: ')}", code=error.code
                ) from None

    async def _scores(self, search: str, descriptions: Sequence[str]) -> list[float]:
        """Return how well each description fits the search."""
        if self._text_encoder is not None:
            # not in the service's own threads, where pictures would wait for it
            return await asyncio.to_thread(self._text_encoder.similarities, search, descriptions)

        async def make(index: int) -> Request:
            return fit_request(index, search, descriptions[index])

        results = await self._many.answer(len(descriptions), make, SamplingOptions(max_new_tokens=1))
        return [result.choices["yes"] for result in results if result.choices is not None]


def _form_schema(form: type[BaseModel], required: bool) -> dict[str, Any]:
    """Return what FastAPI's schema of a form without files lacks: it may be multipart, or absent."""
    content = {"multipart/form-data": {"schema": {"$ref": f"#/components/schemas/{form.__name__}"}}}
    return {"requestBody": {"content": content, "required": required}}

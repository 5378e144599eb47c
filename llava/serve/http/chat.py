"""POST /v1/chat/completions, as OpenAI's clients ask it."""

from __future__ import annotations

import json
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi import Request as HttpRequest
from starlette.responses import StreamingResponse

from llava.common.errors import InputError
from llava.common.records import question_text
from llava.conversation import ChatTurns, Speaker
from llava.inference.live import Piece
from llava.inference.requests import Request, Result
from llava.inference.sampling import SamplingOptions, TokenLogprobs
from llava.processing.vision import Pixels
from llava.serve.http.chat_schema import (
    AnswerMessage,
    ChatRequest,
    Choice,
    Chunk,
    ChunkChoice,
    Completion,
    Delta,
    ImagePart,
    Logprobs,
    Message,
    PromptDetails,
    TextPart,
    TokenLogprob,
    TopLogprob,
    Usage,
)
from llava.serve.http.errors import ApiError
from llava.serve.http.pictures import file_digest, read_data_url
from llava.serve.http.service import Answers, Service, checked, request_answers

router = APIRouter()


@router.post(
    "/v1/chat/completions",
    response_model=Completion,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def complete_chat(
    body: ChatRequest, http_request: HttpRequest, answers: Annotated[Answers, Depends(request_answers)]
) -> Any:
    """Answer a conversation's last question."""
    service: Service = http_request.app.state.service
    check_model(service, body.model)
    options = sampling_options(body, service.limits.max_new_tokens)
    request = await read_request(body, service)
    for index in range(body.n or 1):
        # sampled answers to one question differ, with a seed always in the same way
        asked = request if index == 0 else replace(request, question_id=f"{request.question_id}#{index}")
        await answers.add(asked, options)
    reply = _Reply(body, service)
    if not body.stream:
        return await reply.whole(answers)
    events = reply.stream(answers)
    first = await anext(events)  # what fails before the first piece has its own status
    return StreamingResponse(
        _preceded(first, events, http_request.scope["request_id"]), media_type="text/event-stream"
    )


def check_model(service: Service, name: str) -> None:
    """Raise ApiError unless `name` is the model that is served."""
    if name != service.model_id:
        message = f"there is no model {name[:100]!r} here, only {service.model_id!r}"
        raise ApiError(404, message, param="model", code="model_not_found")


def sampling_options(body: ChatRequest, max_new_tokens: int) -> SamplingOptions:
    """Return how the answers are sampled; greedily where the request says nothing.

    Raises:
        ApiError: a value is out of range, or the answer may be longer than `max_new_tokens`.
    """
    asked = body.max_completion_tokens or body.max_tokens
    if asked is not None and asked > max_new_tokens:
        field = "max_completion_tokens" if body.max_completion_tokens else "max_tokens"
        raise ApiError(400, f"{field} is {asked}, at most {max_new_tokens} are given", param=field)
    stop = [body.stop] if isinstance(body.stop, str) else body.stop or []
    try:
        return SamplingOptions(
            max_new_tokens=asked or max_new_tokens,
            temperature=body.temperature or 0.0,
            top_p=body.top_p,
            stop=tuple(stop),
            seed=secrets.randbits(32) if body.seed is None else body.seed,
            top_logprobs=(body.top_logprobs or 0) if body.logprobs else None,
            json_schema=body.response_format.schema_text() if body.response_format else None,
        )
    except InputError as error:
        raise ApiError(400, str(error)) from None


async def read_request(body: ChatRequest, service: Service) -> Request:
    """Read the conversation and prepare its pictures.

    Raises:
        ApiError: the turns do not alternate, or a picture cannot be had.
    """
    messages = list(body.messages)
    system = None
    if messages[0].role in ("system", "developer"):
        system = "\n".join(_texts(messages.pop(0)))
    turns: list[tuple[Speaker, str]] = []
    urls: list[tuple[str, str]] = []
    for number, message in enumerate(messages, len(body.messages) - len(messages)):
        param = f"messages.{number}"
        expected = "assistant" if len(turns) % 2 else "user"
        if message.role != expected:
            text = f"{param} is from the {message.role}: user and assistant must take turns, the user first"
            raise ApiError(400, text, param=param)
        found = _pictures(message, param)
        if found and message.role == "assistant":
            raise ApiError(400, f"{param}: an assistant's message has no pictures", param=param)
        urls += found
        text = "\n".join(_texts(message))
        try:
            turns.append(("human", question_text(text, len(found))) if expected == "user" else ("gpt", text))
        except InputError as error:
            raise ApiError(400, f"{param}: {error}", param=param) from None
    if len(turns) % 2 == 0:
        raise ApiError(400, "the last message must be the user's question", param="messages")
    most = service.limits.max_pictures
    if len(urls) > most:
        text = f"the conversation has {len(urls)} pictures, at most {most} are taken"
        raise ApiError(400, text, param="messages", code="too_many_pictures")
    pixels = [await _read_picture(url, param, len(urls) == 1, service) for url, param in urls]
    history: ChatTurns = turns[:-1]
    question_id = 0 if body.question_id is None else body.question_id
    return Request(question_id, turns[-1][1], pixels, body.choices, history, system)


def _texts(message: Message) -> list[str]:
    if isinstance(message.content, str):
        return [message.content]
    return [part.text for part in message.content if isinstance(part, TextPart)]


def _pictures(message: Message, param: str) -> list[tuple[str, str]]:
    """Return the address of each picture in a message, and the field that it is in."""
    if isinstance(message.content, str):
        return []
    return [
        (part.image_url.url, f"{param}.content.{number}.image_url.url")
        for number, part in enumerate(message.content)
        if isinstance(part, ImagePart)
    ]


async def _read_picture(url: str, param: str, alone: bool, service: Service) -> Pixels:
    """Return the pixel values of the picture that a field holds or names."""

    try:
        if url[:5].lower() == "data:":
            data = await service.in_thread(lambda: read_data_url(url))
        else:
            data = await service.fetcher.fetch(url)
        digest = await service.in_thread(lambda: file_digest(data))
        return await service.pictures.get(data, digest, alone)
    except ApiError as error:
        error.param = param
        raise


class _Reply:
    """Writes the answers to one request."""

    def __init__(self, body: ChatRequest, service: Service) -> None:
        self._base: dict[str, Any] = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": body.model,
        }
        self._n = body.n or 1
        self._token_bytes = service.token_bytes if body.logprobs else None
        self._with_usage = body.stream_options is not None and body.stream_options.include_usage

    async def whole(self, answers: Answers) -> Completion:
        """Wait for all answers."""
        results: dict[int, Result] = {}
        async for index, event in answers:
            if isinstance(event, Result):
                results[index] = checked(event)
        choices = [
            Choice(
                index=index,
                message=AnswerMessage(content=result.text),
                logprobs=self._logprobs(result.logprobs),
                finish_reason="length" if result.truncated else "stop",
                choice_probabilities=result.choices,
            )
            for index, result in sorted(results.items())
        ]
        return Completion(choices=choices, usage=_usage(list(results.values())), **self._base)

    async def stream(self, answers: Answers) -> AsyncIterator[str]:
        """Give the answers as server-sent events while they are written."""
        results: list[Result] = []
        begun = set[int]()
        sent_logprobs = [0] * self._n
        async for index, event in answers:
            delta = Delta()
            if index not in begun:
                begun.add(index)
                delta.role, delta.content = "assistant", ""
            if isinstance(event, Piece):
                delta.content = event.text
                sent_logprobs[index] += len(event.logprobs)
                yield self._chunk(
                    ChunkChoice(index=index, delta=delta, logprobs=self._logprobs(event.logprobs))
                )
                continue
            result = checked(event)
            results.append(result)
            yield self._chunk(
                ChunkChoice(
                    index=index,
                    delta=delta,
                    logprobs=self._logprobs(result.logprobs[sent_logprobs[index] :]),
                    finish_reason="length" if result.truncated else "stop",
                    choice_probabilities=result.choices,
                )
            )
        if self._with_usage:
            yield _event(Chunk(choices=[], usage=_usage(results), **self._base).model_dump_json())
        yield _event("[DONE]")

    def _chunk(self, choice: ChunkChoice) -> str:
        fields = Chunk(choices=[choice], **self._base).model_dump(exclude_none=True)
        fields["choices"][0].setdefault("finish_reason", None)  # the clients want it in every part
        return _event(json.dumps(fields, ensure_ascii=False))

    def _logprobs(self, found: Sequence[TokenLogprobs]) -> Logprobs | None:
        if self._token_bytes is None:
            return None
        describe = self._token_bytes.describe
        return Logprobs(
            content=[
                TokenLogprob(
                    **describe(entry.token),
                    logprob=entry.logprob,
                    top_logprobs=[TopLogprob(**describe(token), logprob=value) for token, value in entry.top],
                )
                for entry in found
            ]
        )


def _usage(results: Sequence[Result]) -> Usage:
    """Count the tokens of the answers to one question, which was read once."""
    prompt = results[0].prompt_tokens
    completion = sum(result.completion_tokens for result in results)
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=PromptDetails(cached_tokens=min(result.cached_tokens for result in results)),
    )


def _event(data: str) -> str:
    return f"data: {data}\n\n"


async def _preceded(first: str, events: AsyncIterator[str], request_id: str) -> AsyncIterator[str]:
    """Give the first event and the others; what fails among them is the last."""
    yield first
    try:
        async for event in events:
            yield event
    except ApiError as error:
        yield _event(json.dumps({"error": error.content(request_id)}))

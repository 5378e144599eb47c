"""The bodies of /v1/chat/completions: OpenAI's fields as far as the engine has them, and two of our own.

https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from llava.inference.sampling import MAX_TOP_LOGPROBS

MAX_MESSAGES = 512
MAX_PARTS = 512
MAX_CHOICES = 256
MAX_N = 128


class TextPart(BaseModel):
    """Text in a message."""

    type: Literal["text"]
    text: str


class ImageUrl(BaseModel):
    """Where a picture is: a base64 data URL, or an address that the service may fetch from."""

    url: str
    detail: Literal["auto", "low", "high"] | None = None
    """Taken and not used: the model decides the resolution."""


class ImagePart(BaseModel):
    """A picture in a message."""

    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class Message(BaseModel):
    """A turn of the conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[Part], Field(max_length=MAX_PARTS)]


class StreamOptions(BaseModel):
    """What a stream tells besides the answer."""

    include_usage: bool = False


class JsonSchema(BaseModel):
    """A JSON schema that the answer follows."""

    model_config = ConfigDict(serialize_by_alias=True, validate_by_alias=True)

    name: str = "answer"
    json_schema: dict[str, Any] = Field(alias="schema", default_factory=dict)
    strict: bool | None = None


class ResponseFormat(BaseModel):
    """The form of the answer: free text, any JSON object, or JSON that follows a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _has_schema(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema belongs to the type json_schema, and is needed there")
        return self

    def schema_text(self) -> str | None:
        """Return the JSON schema that the answer is held to, None for free text."""
        if self.type == "json_object":
            return '{"type": "object"}'
        return None if self.json_schema is None else json.dumps(self.json_schema.json_schema)


class ChatRequest(BaseModel):
    """A question, with the conversation before it."""

    model: str
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_N)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    """0, greedy, where it is left out: the same question gives the same answer."""
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    response_format: ResponseFormat | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    choices: Annotated[list[str], Field(min_length=1, max_length=MAX_CHOICES)] | None = None
    """Ours: answers to give a probability for, as in a question file."""
    question_id: str | int | None = None
    """Ours: takes part in the seed, as in a question file."""
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    tools: list[Any] | None = None

    @model_validator(mode="after")
    def _has_only_what_there_is(self) -> ChatRequest:
        for name in ("frequency_penalty", "presence_penalty", "logit_bias", "tools"):
            if getattr(self, name):
                raise ValueError(f"{name} is not supported; leave it out")
        if len(set(self.choices or ())) < len(self.choices or ()):
            raise ValueError("choices has an answer twice")
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream: true")
        return self


class TopLogprob(BaseModel):
    """A token that might have come in a place, and how probable it was."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    """A token of the answer, and how probable it was."""

    top_logprobs: list[TopLogprob]


class Logprobs(BaseModel):
    """The probabilities of an answer's tokens."""

    content: list[TokenLogprob]


class AnswerMessage(BaseModel):
    """The answer."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(BaseModel):
    """One of `n` answers."""

    index: int
    message: AnswerMessage
    logprobs: Logprobs | None = None
    finish_reason: Literal["stop", "length"]
    choice_probabilities: dict[str, float] | None = None
    """Ours: the probability of each of the request's choices, among them."""


class PromptDetails(BaseModel):
    """How many of the prompt's tokens were read for an earlier request."""

    cached_tokens: int


class Usage(BaseModel):
    """Counts of tokens, images included."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class Completion(BaseModel):
    """The answers to a request."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class Delta(BaseModel):
    """The next part of an answer; the first also has the role."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(BaseModel):
    """The next part of one of `n` answers."""

    index: int
    delta: Delta
    logprobs: Logprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None
    choice_probabilities: dict[str, float] | None = None
    """Ours: with the last part."""


class Chunk(BaseModel):
    """An event of a stream."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None

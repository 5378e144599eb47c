"""Answers from a server with OpenAI's chat completions API: vLLM, SGLang, llama.cpp's, Ollama, ...

The server gets the question and its images, nothing else; it preprocesses the images and applies the chat
template itself. Our own (`llava.serve.api`) also gets the choices, and then answers as `--model-path` does.
Torch is not needed.
"""

from __future__ import annotations

import base64
import json
import math
import os
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from io import BytesIO
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from eval.answering.questions import group_by_image, make_answer
from llava.common.environment import how_to_install
from llava.common.errors import InputError, one_line
from llava.common.images import decode, open_header
from llava.common.photo_cache import photo_at
from llava.common.records import IMAGE_PLACEHOLDER, Answer, Question, question_text

if TYPE_CHECKING:
    from argparse import Namespace

    from openai.types.chat import ChatCompletion
    from openai.types.chat.chat_completion import Choice

RETRIES = 5  # of one question, after 0.5, 1, 2, 4 and 8 seconds or as the server says
MAX_FAILURES = 20  # from the start, with no answer between: then it is not the questions
TOP_LOGPROBS = 20  # alternatives of a token: the most that OpenAI and, unless told otherwise, vLLM give
OWN_SERVER = "llava-inspect"  # who owns the models of `llava.serve.api`
_MEDIA_TYPES = {"JPEG": "image/jpeg", "MPO": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}


class Endpoint:
    """The model that the flags `args` of eval.infer ask for on a server; `url` is where, `model_id` its name.

    InputError if the server cannot be reached, refuses the key or names no model.
    """

    def __init__(self, args: Namespace) -> None:
        try:
            from openai import OpenAI
        except ImportError:
            raise InputError(f"--endpoint needs: {how_to_install('endpoint')}") from None
        address = urlsplit(args.endpoint)
        if address.scheme not in ("http", "https") or not address.netloc:
            raise InputError(f"--endpoint {args.endpoint}: expected an address like http://localhost:8000/v1")
        self.url = args.endpoint.rstrip("/") + ("" if address.path.strip("/") else "/v1")
        key = os.environ.get("OPENAI_API_KEY") or "none"  # the client wants one; most servers do not
        self._client = OpenAI(base_url=self.url, api_key=key, max_retries=RETRIES)
        self._is_own = False
        self.model_id = self._find_model(args.endpoint_model)
        self._args = args
        self._gives_logprobs = True

    def answers(self, questions: Sequence[Question], images: Mapping[str, Path]) -> Iterator[Answer]:
        """Yield the answers in the order in which they come, at most --concurrency asked at a time.

        What the server refuses or fails at is answered with an error. InputError if it fails at the first
        MAX_FAILURES, wants another key, knows no such model, or is gone.
        """
        with_choices = {question.question_id for question in questions if question.choices}
        unscored = 0
        early_failures: (
            list[Answer] | None
        ) = []  # failures, until the first success shows that the server works
        with closing(self._ask_concurrently(questions, images)) as completed:
            for answer, failed in completed:
                if failed and early_failures is not None:
                    early_failures.append(answer)
                    if len(early_failures) == MAX_FAILURES:
                        raise InputError(
                            f"{self.url}: the first {len(early_failures)} questions failed; the last: "
                            f"{answer.metadata['error']}"
                        )
                    continue
                if not failed and "error" not in answer.metadata:
                    yield from early_failures or ()
                    early_failures = None
                    has_choices = answer.question_id in with_choices
                    unscored += has_choices and "choices" not in answer.metadata
                yield answer
        yield from early_failures or ()
        if unscored:
            print(
                f"{unscored} answers have no probabilities of their choices: they are exact only where each "
                f"choice is one token, and among the {TOP_LOGPROBS} likeliest that the server tells",
                file=sys.stderr,
            )

    def _ask_concurrently(
        self, questions: Sequence[Question], images: Mapping[str, Path]
    ) -> Generator[tuple[Answer, bool], None, None]:
        """Yield the answers as they come, each with whether the server failed at it."""
        remaining = (
            (question, group_images)
            for group in group_by_image(questions)
            for group_images in [_GroupImages([images[name] for name in group[0].images], self._is_own)]
            for question in group
        )
        pool = ThreadPoolExecutor(self._args.concurrency)
        pending: set[Future[tuple[Answer, bool]]] = set()
        try:
            while True:
                for question, group_images in islice(remaining, 2 * self._args.concurrency - len(pending)):
                    pending.add(pool.submit(self._answer, question, group_images))
                if not pending:
                    return
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _find_model(self, name: str | None) -> str:
        """Return `name`, or the first model that the server lists, which is asked in any case."""
        import openai

        try:
            listed = self._client.with_options(max_retries=1, timeout=20).models.list()
            models = [model.id for model in listed.data]
            self._is_own = all(model.owned_by == OWN_SERVER for model in listed.data)
        except openai.APIConnectionError as error:
            reason = one_line(error.__cause__ or error)
            raise InputError(f"{self.url} cannot be reached ({reason}); is the server running?") from None
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise InputError(f"{self.url} refuses the key in OPENAI_API_KEY: {one_line(error)}") from None
        except (openai.OpenAIError, AttributeError, TypeError, ValueError) as error:
            if name is None:
                why = (
                    one_line(error) if isinstance(error, openai.OpenAIError) else "its reply is no such list"
                )
                raise InputError(
                    f"{self.url}/models lists no models ({why}); is the address right? If it is, "
                    "name the model with --endpoint-model"
                ) from None
            return name
        if name is None and not models:
            raise InputError(f"{self.url}/models lists no models; name one with --endpoint-model")
        return name or models[0]

    def _answer(self, question: Question, group_images: _GroupImages) -> tuple[Answer, bool]:
        """Return the answer to `question`, and whether the server failed at it."""
        import openai

        try:
            urls = group_images.urls()
            content = (
                marked_message(question.text, urls) if self._is_own else message_parts(question.text, urls)
            )
        except InputError as error:
            return make_answer(question, self.model_id, error=str(error)), False
        try:
            reply = self._complete(content, question)
            choice = first_choice(reply)
            text = (choice.message.content or choice.message.refusal or "").strip()
        except openai.APITimeoutError as error:
            problem = one_line(error)
        except openai.BadRequestError as error:
            if self._is_own and not error.param:  # the engine's own words on this question
                reason = error.body["message"] if isinstance(error.body, dict) else one_line(error)
                return make_answer(question, self.model_id, error=reason), False
            problem = one_line(error)
        except (
            openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError,
            openai.RateLimitError,
        ) as error:  # fmt: skip
            raise InputError(self._fatal_error(error)) from None
        except openai.APIConnectionError as error:
            try:
                self._find_model(self.model_id)
            except InputError:
                raise InputError(self._fatal_error(error)) from None
            problem = f"the server dropped the connection ({one_line(error.__cause__ or error)})"
        except json.JSONDecodeError as error:
            problem = f"the reply is not JSON ({one_line(error)})"
        except (openai.OpenAIError, AttributeError, TypeError, ValueError, LookupError) as error:
            problem = one_line(error)
        else:
            if self._is_own:
                probabilities = getattr(choice, "choice_probabilities", None)
            else:
                probabilities = choice_probabilities(question.choices or [], first_tokens(choice))
            cut = choice.finish_reason == "length"
            return make_answer(question, self.model_id, text, choices=probabilities, truncated=cut), False
        return make_answer(question, self.model_id, error=f"{self.url}: {problem}"), True

    def _complete(self, content: list[dict[str, Any]], question: Question) -> ChatCompletion:
        import openai

        args = self._args
        body: dict[str, Any] = {
            "model": self.model_id,
            "messages": [{"role": "user", "content": content}],
            "temperature": args.temperature,
            "max_tokens": args.max_new_tokens,
            "seed": args.seed,
        }
        if args.top_p is not None:
            body["top_p"] = args.top_p
        if self._is_own:
            own: dict[str, Any] = {"question_id": question.question_id}
            if question.choices:
                own["choices"] = question.choices
            return self._client.chat.completions.create(**body, extra_body=own)
        if question.choices and self._gives_logprobs:
            try:
                return self._client.chat.completions.create(**body, logprobs=True, top_logprobs=TOP_LOGPROBS)
            except (openai.BadRequestError, openai.UnprocessableEntityError):
                reply: ChatCompletion = self._client.chat.completions.create(**body)
                self._gives_logprobs = False  # it was that
                return reply
        return self._client.chat.completions.create(**body)

    def _fatal_error(self, error: Exception) -> str:
        return (
            f"{self.url}: {one_line(error).rstrip('.')}; what is answered is kept, the same command goes on"
        )


class _GroupImages:
    """The images that a group of questions shares, read when the first of these is asked."""

    def __init__(self, paths: Sequence[Path], as_they_are: bool) -> None:
        self._paths = paths
        self._as_they_are = as_they_are
        self._lock = Lock()
        self._urls: list[str] | None = None

    def urls(self) -> list[str]:
        with self._lock:
            if self._urls is None:
                self._urls = [data_url(path, self._as_they_are) for path in self._paths]
            return self._urls


def data_url(path: Path, as_it_is: bool = False) -> str:
    """Return the image as a data URL, as a model loaded here would see it; `as_it_is` for a server that opens
    every picture as we do.

    A JPEG, PNG or WebP is sent as it is, if nothing has to be changed: not every server applies the EXIF
    orientation, lays transparent images on white or reads 16 bits. What has to be changed is re-encoded, a
    JPEG as a JPEG of quality 95 with full colour, anything else as PNG, which loses nothing.
    """
    warned: list[str] = []
    source = photo_at(path)
    with open_header(source, warned) as stored:
        image_format = stored.format or ""
        decoded = decode(stored, source, warned)
    media_type = _MEDIA_TYPES.get(image_format, "application/octet-stream" if as_it_is else None)
    if media_type and (as_it_is or not decoded.changes):
        data = source.read_bytes() if isinstance(source, Path) else source.getvalue()
    else:
        buffer = BytesIO()
        if media_type == "image/jpeg":
            decoded.image.save(buffer, "JPEG", quality=95, subsampling=0)
        else:
            decoded.image.save(buffer, "PNG")
            media_type = "image/png"
        data = buffer.getvalue()
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def first_choice(reply: ChatCompletion) -> Choice:
    """Return the answer in a reply; ValueError, with what the server sent instead, where there is none.

    The client checks nothing: a proxy's page or an error under status 200 comes back as it is.
    """
    choices: Any = getattr(reply, "choices", None)
    message = getattr(choices[0], "message", None) if isinstance(choices, list) and choices else None
    if message is None or not isinstance(message.content, str | None):
        reported = getattr(reply, "error", None) or (
            reply if isinstance(reply, str) else "no text in `choices`"
        )
        raise ValueError(f"the reply is no chat completion: {reported}")
    first: Choice = choices[0]
    return first


def first_tokens(choice: Choice) -> list[tuple[str, float]]:
    """Return the likeliest first tokens of the answer and their log-probabilities.

    Empty where the server sends none, or values that are no log-probabilities.
    """
    try:
        assert choice.logprobs and choice.logprobs.content
        top_tokens = [(str(top.token), float(top.logprob)) for top in choice.logprobs.content[0].top_logprobs]
    except (AssertionError, AttributeError, TypeError, ValueError, LookupError):
        return []
    return (
        top_tokens if all(value < 0.01 for _, value in top_tokens) else []
    )  # rounding may lift a 0; NaN is none


def message_parts(text: str, urls: Sequence[str]) -> list[dict[str, Any]]:
    """Return a user message's content: each image where its `<image>` mark is, and the text without marks."""
    parts: list[dict[str, Any]] = []
    for index, piece in enumerate(question_text(text, len(urls)).split(IMAGE_PLACEHOLDER)):
        if index:
            parts.append({"type": "image_url", "image_url": {"url": urls[index - 1]}})
        if piece := piece.strip("\n"):
            parts.append({"type": "text", "text": piece})
    return parts


def marked_message(text: str, urls: Sequence[str]) -> list[dict[str, Any]]:
    """Return a user message's content for our own server, which reads `<image>` marks where there are any."""
    pictures: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [*pictures, {"type": "text", "text": text}]


def choice_probabilities(
    choices: Sequence[str], top_tokens: Sequence[tuple[str, float]]
) -> dict[str, float] | None:
    """Return the probability of each choice, from the likeliest first tokens and their log-probabilities.

    None where these do not tell: where a choice is not a token among them, or one choice begins with another.
    (The local engine counts the end of the answer too, and so tells "no" from "none".)
    """
    if not choices or any(a != b and b.startswith(a) for a in choices for b in choices):
        return None
    weights = []
    for choice in choices:
        # with and without the space before a word, or what tokenizers write for it
        same = [value for token, value in top_tokens if token.strip(" \n▁Ġ") == choice and value > -9999]
        if not same:
            return None
        weights.append(sum(map(math.exp, same)))
    return {choice: weight / sum(weights) for choice, weight in zip(choices, weights, strict=True)}

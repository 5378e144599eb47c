"""Serve a model over HTTP: `python -m llava.serve.api`. No file is written."""

from __future__ import annotations

import logging
import socket
import sys
import threading
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from llava.common.cli import CommandParser, add_model_flags, at_least
from llava.common.environment import how_to_install
from llava.common.errors import InputError, run_command
from llava.serve.http.limits import Limits

if TYPE_CHECKING:
    from argparse import Namespace

    from llava.inference.live import LiveEngine
    from llava.serve.http.guard import Guard
    from llava.serve.http.service import Service

NOTES = """POST /v1/chat/completions speaks as OpenAI's does (the openai client works as it is), GET
/openapi.json says how; /health, /ready and /metrics are for what watches the service. docs/serving.md has
the rest.

Ctrl-C or SIGTERM: no new requests, those that run have --grace seconds to end."""
EXAMPLES = [
    "--model-path playground/tiny-llava",
    "--model-path runs/merged --host 0.0.0.0 --port 8000 --api-key-file key.txt",
]
PROMPT = "Describe the image"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
MAX_CONNECTIONS = 2048
"""Beyond it clients get 503 at once."""
MAX_IDLE_SECONDS = 30.0
"""Of a connection between requests, and for a request's head to come; not longer than a body may take."""


def parse_arguments(argv: Sequence[str]) -> Namespace:
    parser = CommandParser(
        "python -m llava.serve.api", "Serve a model over HTTP.", notes=NOTES, examples=EXAMPLES
    )
    add_model_flags(parser)
    parser.add_argument("--model-name", help="what clients call it (default: the folder's name)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="0 for any that is free (default: 8000)")
    parser.add_argument("--api-key-file", type=Path, help="clients must send the key in this file as bearer")
    parser.add_argument(
        "--allow-address",
        action="append",
        default=[],
        metavar="HOST",
        help="pictures may be fetched from there, by http or https: photos.example.com, *.example.com,"
        " photos.example.com:8080; a private IP address or network (10.1.0.0/16) must be named besides the"
        " host; repeat it for more (default: from nowhere)",
    )
    parser.add_argument(
        "--grace",
        type=float,
        default=30.0,
        help="seconds that running requests have at the end (default: 30)",
    )
    engine = parser.add_argument_group("the engine")
    engine.add_argument(
        "--batch-size", type=at_least(1), help="answers written at a time (default: what memory allows)"
    )
    engine.add_argument(
        "--max-waiting",
        type=int,
        default=128,
        help="questions that may wait besides; more get 429 (default: 128)",
    )
    engine.add_argument(
        "--prefix-cache-mib",
        type=int,
        help="memory for pictures read before (default: a fifth of what is free)",
    )
    alt_texts = parser.add_argument_group("alt texts")
    alt_texts.add_argument(
        "--prompt", default=PROMPT, help=f"what is asked about each picture (default: {PROMPT!r})"
    )
    alt_texts.add_argument(
        "--text-encoder",
        metavar="MODEL",
        help="folder or Hub name of a sentence-transformers model that compares searches with descriptions "
        "(default: the served model is asked itself)",
    )
    alt_texts.add_argument(
        "--least-score",
        type=float,
        help="from which score a description fits a search: cosine similarity with --text-encoder (default: "
        "0.35), else the probability of yes (default: 0.5)",
    )
    limits = parser.add_argument_group("what one request may have at most")
    for name, (convert, text) in LIMIT_FLAGS.items():
        default = getattr(Limits, name)
        shown = "the model's context" if default is None else f"{default:g}"
        limits.add_argument(
            f"--{name.replace('_', '-')}", type=convert, default=default, help=f"{text} (default: {shown})"
        )
    return parser.parse_args(argv)


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise ValueError(text)
    return value


def _seconds(text: str) -> float:
    if not 0 < (value := float(text)) < float("inf"):
        raise ValueError(text)
    return value


_positive.__name__, _seconds.__name__ = "number above 0", "number of seconds"  # for argparse's errors
LIMIT_FLAGS = {
    "max_request_mib": (_positive, "MiB of a form with files"),
    "max_json_mib": (_positive, "MiB of any other request"),
    "max_megapixels": (_positive, "million pixels of a picture"),
    "max_pictures": (_positive, "pictures of a conversation"),
    "max_uploads": (_positive, "pictures in a request for alt texts"),
    "max_prompt_tokens": (_positive, "tokens of a question with its pictures and what went before"),
    "max_new_tokens": (_positive, "tokens of an answer"),
    "max_seconds": (_seconds, "seconds for an answer, waiting included"),
    "max_receive_seconds": (_seconds, "seconds for a request to arrive"),
    "max_address_seconds": (_seconds, "seconds to fetch a picture from an address"),
    "max_address_mib": (_positive, "MiB of a picture from an address"),
}


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_arguments(sys.argv[1:] if argv is None else argv)
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise InputError(f"the service needs: {how_to_install('serve')}") from None
    api_key = read_key(args.api_key_file)
    limits = Limits(**{field.name: getattr(args, field.name) for field in fields(Limits)})

    from llava.serve.http.addresses import AddressFetcher

    fetcher = AddressFetcher(args.allow_address, limits)
    listening = listen(args.host, args.port)  # before the model, which takes longer

    from llava.inference.live import LiveEngine
    from llava.model.builder import load_model
    from llava.serve.http.alt_text import AltTexts
    from llava.serve.http.app import create_app
    from llava.serve.http.best_picture import TextEncoder
    from llava.serve.http.service import Service

    encoder = None if args.text_encoder is None else TextEncoder.load(args.text_encoder)
    loaded = load_model(
        args.model_path, args.model_base, device=args.device, load_8bit=args.load_8bit,
        load_4bit=args.load_4bit, conv_mode=args.conv_mode,
    )  # fmt: skip
    live = LiveEngine(
        loaded,
        batch_size=args.batch_size,
        max_waiting=args.max_waiting,
        max_prompt_tokens=limits.max_prompt_tokens,
        max_prefix_bytes=None if args.prefix_cache_mib is None else args.prefix_cache_mib * 2**20,
    )
    service = Service(live, args.model_name or loaded.model_id, limits, fetcher)
    if args.host not in LOOPBACK and api_key is None:
        print(
            "note: anybody who reaches this machine may ask: --api-key-file asks for a key", file=sys.stderr
        )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    alt_texts = AltTexts(service, args.prompt, encoder, args.least_score)
    serve(service, live, create_app(service, api_key, [alt_texts.router]), listening, args.grace)
    return 0


def read_key(path: Path | None) -> str | None:
    """Return the key in a file, without the white space around it; InputError where there is none."""
    if path is None:
        return None
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--api-key-file {path}: cannot be read ({error})") from None
    if not key.isascii() or not key.isprintable() or not key:
        raise InputError(f"--api-key-file {path}: expected one line of ASCII letters, digits and signs")
    return key


def listen(host: str, port: int) -> socket.socket:
    """Take the address; InputError where that cannot be."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"--host {host} --port {port}: {reason}; name another") from None
    # Its connections inherit it. asyncio sets it only on sockets that name a protocol; without it the first
    # words of a stream wait 40 ms for the client's acknowledgement of the headers.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def address(listening: socket.socket) -> str:
    """Return the address that a socket has taken, as a browser or client writes it."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def serve(service: Service, live: LiveEngine, app: Guard, listening: socket.socket, grace: float) -> None:
    """Serve until SIGINT or SIGTERM; then let what runs end within `grace` seconds."""
    import uvicorn

    from llava.serve.http.connections import Connection
    from llava.serve.http.server import Server

    def drain() -> None:
        service.draining = True
        # what does not end in time gets its error from the engine before uvicorn cuts the connection
        threading.Thread(target=live.close, args=(grace,), daemon=True).start()

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=int(grace) + 3,
        http=Connection,
        timeout_keep_alive=max(1, int(min(MAX_IDLE_SECONDS, service.limits.max_receive_seconds))),
        ws="none",
        lifespan="off",
    )
    Server(config, f"serving {service.model_id} at {address(listening)}/v1", drain).run(sockets=[listening])
    live.close()


if __name__ == "__main__":
    run_command(main)

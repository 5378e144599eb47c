"""Show a model on a web page: `python -m llava.serve.web`. Nothing that visitors send is kept."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from llava.common.cli import CommandParser, add_model_flags, at_least
from llava.common.environment import how_to_install
from llava.common.errors import InputError, run_command
from llava.common.files import read_text
from llava.deciding.decision import Decision, load_decision
from llava.serve.api import LOOPBACK, address, listen
from llava.serve.http.limits import Limits

if TYPE_CHECKING:
    from argparse import Namespace

    from llava.serve.page.make_tab import Tools
    from llava.serve.page.private_folder import PrivateFolder

NOTES = """Nothing is kept. An uploaded photo lies in a private folder until it is read, at once or with the
question about it; then it, the talk and what the model has read are in memory only. All of a visitor is wiped
when the tab closes, after --idle-minutes, and at the end (Ctrl-C or SIGTERM); what a killed process left in
its folder is wiped at the next start. The page takes nothing from other hosts and tells nobody anything.
docs/web.md has the rest."""
EXAMPLES = [
    "--model-path playground/tiny-llava",
    "--model-path runs/insulators/merged --host 0.0.0.0 --auth-file users.txt",
    "--model-path runs/insulators/merged --segmenter facebook/sam2.1-hiera-small\n"
    "--diffusion-model models/stable-diffusion-xl-base-1.0",
]
SHUTDOWN_SECONDS = 2
"""That open connections have at the end."""


def parse_arguments(argv: Sequence[str]) -> Namespace:
    parser = CommandParser(
        "python -m llava.serve.web", "Show a model on a web page.", notes=NOTES, examples=EXAMPLES
    )
    add_model_flags(parser)
    parser.add_argument("--model-name", help="what the page calls it (default: the folder's name)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=7860, help="0 for any that is free (default: 7860)")
    parser.add_argument(
        "--auth-file",
        type=Path,
        help="who may come: a line NAME:PASSWORD for each; without --host the page is for this machine only",
    )
    parser.add_argument(
        "--share",
        action="store_true",
        help="also make a public https address on gradio.live, for 72 hours: Gradio downloads a tunnel"
        " program (frpc) once, and all that visitors send and see passes through Gradio's servers",
    )
    parser.add_argument(
        "--decision",
        type=Path,
        help="decision.json of certify: says sound, a defect or ask a person where its question is asked",
    )
    parser.add_argument(
        "--segmenter",
        help="a folder or Hub name of SAM or SAM 2: a tab labels what is clicked on; with --diffusion-model,"
        " which does without it, clicks say what is painted and not only boxes",
    )
    parser.add_argument(
        "--diffusion-model",
        help="a folder or Hub name of Stable Diffusion 1, 2 or XL: a tab paints defects into photos",
    )
    parser.add_argument("--report", type=Path, help="the scores' report.html (default: that of the run)")
    parser.add_argument(
        "--idle-minutes",
        type=float,
        default=30.0,
        help="wipe a visitor who has asked nothing for so long (default: 30)",
    )
    parser.add_argument(
        "--per-address",
        type=int,
        default=4,
        help="answers on their way to one network address at a time; more behind a proxy (default: 4)",
    )
    parser.add_argument(
        "--batch-size", type=at_least(1), help="answers written at a time (default: what memory allows)"
    )
    parser.add_argument("--max-mib", type=int, default=64, help="MiB of a photo's file (default: 64)")
    parser.add_argument(
        "--max-megapixels", type=int, default=100, help="million pixels of a photo (default: 100)"
    )
    parser.add_argument(
        "--max-new-tokens", type=int, default=1024, help="longest answer, in tokens (default: 1024)"
    )
    args = parser.parse_args(argv)
    above = {"idle_minutes": 0, "per_address": 0, "max_mib": 0, "max_megapixels": 0, "max_new_tokens": 1}
    for flag, least in above.items():
        if not getattr(args, flag) > least:
            parser.error(f"--{flag.replace('_', '-')} must be above {least}")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_arguments(sys.argv[1:] if argv is None else argv)
    users = None if args.auth_file is None else read_users(args.auth_file)
    if args.report is not None and not args.report.is_file():
        raise InputError(f"--report {args.report}: no such file; name a report.html")
    decision = None if args.decision is None else load_decision(args.decision)
    listening = listen(args.host, args.port)  # before the model, which takes longer

    from llava.serve.page.private_folder import PrivateFolder

    folder = PrivateFolder()
    try:
        with kept_inside(folder):
            serve(args, users, decision, listening, folder)
    finally:
        folder.wipe()
    return 0


def read_users(path: Path) -> list[tuple[str, str]]:
    """Return the names and passwords in a file; InputError where a line is none."""
    users: list[tuple[str, str]] = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        name, colon, password = line.partition(":")
        if line.strip() and not (name.strip() and colon and password):
            raise InputError(f"--auth-file {path}, line {number}: expected NAME:PASSWORD")
        if any(name.strip() == other for other, _ in users):
            raise InputError(f"--auth-file {path}, line {number}: {name.strip()} has a password already")
        if line.strip():
            users.append((name.strip(), password))
    if not users:
        raise InputError(f"--auth-file {path}: expected a line NAME:PASSWORD for each user")
    return users


@contextmanager
def kept_inside(folder: PrivateFolder) -> Iterator[None]:
    """Have this process's temporary files in the folder, Gradio's too, and Gradio tell nobody anything.

    Some of the environment is read when Gradio is imported: that must be inside.
    """
    settings = {
        "GRADIO_TEMP_DIR": str(folder.path),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_RUN_HISTORY": "False",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    before = tempfile.tempdir, {name: os.environ.get(name) for name in settings}
    tempfile.tempdir = str(folder.path)
    os.environ.update(settings)
    try:
        yield
    finally:
        tempfile.tempdir = before[0]
        for name, value in before[1].items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def serve(
    args: Namespace,
    users: list[tuple[str, str]] | None,
    decision: Decision | None,
    listening: socket.socket,
    folder: PrivateFolder,
) -> None:
    """Load the model and serve the page until SIGINT or SIGTERM."""
    try:
        import gradio  # noqa: F401
        import uvicorn
    except ImportError:
        raise InputError(f"the page needs: {how_to_install('web')}") from None

    from llava.deciding.of_model import check_folder
    from llava.inference.live import LiveEngine
    from llava.model.builder import load_model
    from llava.model.folder import open_model_folder
    from llava.serve.http.server import Server
    from llava.serve.page.app import create_app
    from llava.serve.page.report_tab import find_report
    from llava.serve.page.visitors import Visitors

    tools = load_tools(args)  # before the model, whose answers take the memory that is left
    model = open_model_folder(args.model_path)
    if decision is not None:
        check_folder(decision, model, "picture")
    loaded = load_model(
        model, args.model_base, device=args.device, load_8bit=args.load_8bit,
        load_4bit=args.load_4bit, conv_mode=args.conv_mode,
    )  # fmt: skip
    limits = Limits(
        max_request_mib=args.max_mib, max_megapixels=args.max_megapixels, max_new_tokens=args.max_new_tokens
    )
    with LiveEngine(loaded, batch_size=args.batch_size) as live:
        visitors = Visitors(
            live,
            folder,
            limits,
            idle_seconds=60 * args.idle_minutes,
            per_address=args.per_address,
            decision=decision,
        )
        app = create_app(
            visitors,
            args.model_name or loaded.model_id,
            args.report or find_report(args.model_path),
            users,
            tools,
        )
        if args.host not in LOOPBACK and users is None:
            print(
                "note: anybody who reaches this machine may use the page: --auth-file asks for a password",
                file=sys.stderr,
            )
        if args.share:
            share(listening.getsockname()[1])
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, timeout_graceful_shutdown=SHUTDOWN_SECONDS
        )

        def end() -> None:
            threading.Thread(target=visitors.close, daemon=True).start()  # which ends their answers

        Server(config, f"open {address(listening)}", end).run(sockets=[listening])
        visitors.close()


def load_tools(args: Namespace) -> Tools | None:
    """Return what cuts out and paints, None where neither is asked for."""
    if args.segmenter is None and args.diffusion_model is None:
        return None
    from llava.common.masks import import_opencv
    from llava.painting.diffusion_model import load_diffusion
    from llava.painting.segment import find_segmenter
    from llava.serve.page.easel import Easel
    from llava.serve.page.make_tab import Tools

    import_opencv()  # which says what to install
    segmenter = find_segmenter(args.segmenter, args.device)
    if args.diffusion_model is None:
        return Tools(segmenter, None)
    return Tools(segmenter, Easel(load_diffusion(args.diffusion_model, args.device)))


def share(port: int) -> None:
    """Make the public address that --share speaks of."""
    import secrets

    from gradio import networking

    public = networking.setup_tunnel("127.0.0.1", port, secrets.token_urlsafe(32), None, None)
    print(f"anybody may open {public} for 72 hours; it passes through Gradio's servers", file=sys.stderr)


if __name__ == "__main__":
    run_command(main)

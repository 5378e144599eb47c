"""Talk about a picture in the terminal: `python -m llava.serve.cli`. Nothing is written to disk."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llava.errors import InputError, run_command
from llava.flags import FlagParser, add_decoding_flags, add_model_flags

if TYPE_CHECKING:
    from llava.chat import Chat

EPILOG = """example:
  python -m llava.serve.cli --model-path playground/tiny-llava --image-file a.jpg

An empty line or Ctrl-D ends the chat, Ctrl-C only the answer that is being given. Questions can also be piped
in, a line each. Answers are greedy (temperature 0, where LLaVA's own chat takes 0.2): asking twice must not
give two findings.
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = FlagParser(prog="python -m llava.serve.cli", description=__doc__, epilog=EPILOG)
    add_model_flags(parser)
    parser.add_argument("--image-file", required=True, help="path or http(s) address of the picture")
    add_decoding_flags(parser, max_new_tokens=512, beams=False)
    parser.add_argument("--debug", action="store_true", help="show the whole prompt after each answer")
    args = parser.parse_args(sys.argv[1:] if argv is None else argv)

    from llava.eval.run_llava import load_image

    image = load_image(args.image_file)  # before the model: it is quicker to fail

    from llava.chat import Chat
    from llava.engine import Engine
    from llava.model.builder import load_model

    loaded = load_model(
        args.model_path, args.model_base, device=args.device, load_8bit=args.load_8bit,
        load_4bit=args.load_4bit, conv_mode=args.conv_mode,
    )  # fmt: skip
    chat = Chat(
        Engine(loaded),
        max_new_tokens=args.max_new_tokens,
        temperature=args.temperature,
        top_p=args.top_p,
        seed=args.seed,
    )
    chat.add_image(image)
    if sys.stdin.isatty():
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  # arrow keys in the questions; absent on Windows
    while (question := read_question()) is not None:
        answer(chat, question, args.debug)
    print("exit...")
    return 0


def read_question() -> str | None:
    """The next question; None when the user is done. Ctrl-C here only drops what was typed."""
    while True:
        try:
            return input("USER: ").strip() or None
        except EOFError:
            print()
            return None
        except KeyboardInterrupt:
            print("\n(an empty line or Ctrl-D ends the chat)")


def answer(chat: Chat, question: str, debug: bool) -> None:
    """Stream the answer to stdout; Ctrl-C ends it and leaves the chat as it stands."""
    forgotten = chat.forgotten
    print("ASSISTANT: ", end="", flush=True)
    pieces = chat.ask(question)
    try:
        for piece in pieces:
            print(piece, end="", flush=True)
        print()
    except KeyboardInterrupt:
        print(" (stopped)")
    except InputError as error:  # this question cannot be asked; the next may
        print(f"\nerror: {error}", file=sys.stderr)
    finally:
        pieces.close()
    if chat.forgotten > forgotten:
        print(
            f"(the conversation outgrew the model's context of {chat.engine.context_len} tokens: "
            f"{chat.forgotten} oldest exchange(s) forgotten; the picture is not)",
            file=sys.stderr,
        )
    if debug:
        print(f"\nprompt and answers so far:\n{chat.prompt}\n", file=sys.stderr)


if __name__ == "__main__":
    run_command(main)

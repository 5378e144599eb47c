"""Talk about a picture in the terminal: `python -m llava.serve.cli`. Nothing is written to disk."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llava.common.cli import CommandParser, add_model_flags, add_sampling_flags
from llava.common.errors import InputError, run_command
from llava.common.records import Call
from llava.deciding.decision import load_decision

if TYPE_CHECKING:
    from PIL import Image

    from llava.deciding.decision import Decision
    from llava.inference.chat import Chat

COMMANDS = """/image PATH_OR_URL   show another picture, with the next question
/reset               forget the talk, keep the last picture
/reset PATH_OR_URL   forget the talk and start with this picture
/undo                take back the last question and its answer
/help                this list
/exit                end the chat, as do an empty line and Ctrl-D; Ctrl-C ends only an answer"""

COMMAND_NAMES = ("/image ", "/reset ", "/undo", "/help", "/exit")
"""With a space behind those that take a path."""

NOTES = f"""In the chat:
{COMMANDS}

Tab completes commands and paths. Questions can also be piped in, a line each. Answers are greedy (temperature
0, where LLaVA's own chat takes 0.2): asking twice must not give two findings.

With --decision a line DECISION follows the answer to a question that the decision was certified for: sound, a
defect or ask a person, with P(yes) and what is promised. It is about the picture shown last, whatever else
was said and shown."""
CALLS: dict[Call, str] = {"sound": "sound", "defect": "a defect", "ask": "ask a person"}


def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser(
        "python -m llava.serve.cli",
        "Talk about a picture in the terminal. Nothing is written to disk.",
        notes=NOTES,
        examples=[
            "--model-path playground/tiny-llava --image-file a.jpg",
            "--model-path runs/first/merged --image-file a.jpg --decision decision.json",
        ],
    )
    add_model_flags(parser)
    parser.add_argument("--image-file", required=True, help="path or http(s) address of the picture")
    add_sampling_flags(parser, max_new_tokens=512, beams=False)
    parser.add_argument("--decision", type=Path, help="decision.json of certify, to decide on pictures by")
    parser.add_argument("--debug", action="store_true", help="show the whole prompt after each answer")
    args = parser.parse_args(sys.argv[1:] if argv is None else argv)

    from llava.eval.run_llava import load_image

    # both before the model, which takes longer to load
    decision = None if args.decision is None else load_decision(args.decision)
    image = load_image(args.image_file)

    from llava.deciding.of_model import check_folder
    from llava.inference.chat import Chat
    from llava.inference.model_runner import ModelRunner
    from llava.model.builder import load_model
    from llava.model.folder import open_model_folder

    folder = open_model_folder(args.model_path)
    if decision is not None:
        check_folder(decision, folder, "picture")
    loaded = load_model(
        folder, args.model_base, device=args.device, load_8bit=args.load_8bit,
        load_4bit=args.load_4bit, conv_mode=args.conv_mode,
    )  # fmt: skip
    chat = Chat(
        ModelRunner(loaded),
        max_new_tokens=args.max_new_tokens,
        temperature=args.temperature,
        top_p=args.top_p,
        seed=args.seed,
    )
    chat.add_image(image)
    if sys.stdin.isatty():
        with contextlib.suppress(ImportError):
            complete_on_tab()
        print_note("/help shows the commands")
    if decision is not None:
        wordings = " or ".join(f'"{wording}"' for wording in decision.wordings)
        print_note(
            f"{args.decision} decides where you ask {wordings}; its `limits` say what it cannot promise"
        )
    while (line := read_line()) is not None and line != "/exit":
        if line.startswith("/"):
            run_chat_command(chat, line)
        else:
            answered = stream_answer(chat, line, args.debug)
            if answered and decision is not None:
                print_decision(decision, chat, line)
    print("exit...")
    return 0


def complete_on_tab() -> None:
    """Have Tab complete commands and paths, and arrow keys move in a question. ImportError on Windows, whose
    Python has no readline."""
    import readline

    def complete(word: str, index: int) -> str | None:
        before = readline.get_line_buffer()[: readline.get_begidx()]  # of the word
        found = [line[len(before) :] for line in completions(before + word)]
        return found[index] if index < len(found) else None

    readline.set_completer(complete)
    readline.set_completer_delims(" ")
    is_libedit = "libedit" in (readline.__doc__ or "")  # stands in for readline in some builds of Python
    readline.parse_and_bind("bind ^I rl_complete" if is_libedit else "tab: complete")


def completions(line: str) -> list[str]:
    """Return what `line` may become: the commands that begin so; after one that takes a path, the files and
    folders that do."""
    command, space, typed = line.partition(" ")
    if not space:
        return [name for name in COMMAND_NAMES if line.startswith("/") and name.startswith(line)]
    if f"{command} " not in COMMAND_NAMES:
        return []
    folder, slash, name = typed.rpartition("/")
    paths: list[Path] = []
    with contextlib.suppress(OSError):
        paths = sorted(Path(folder + slash).expanduser().iterdir())
    shown = [path for path in paths if path.name.startswith(name) and (name or path.name[0] != ".")]
    return [f"{command} {folder}{slash}{path.name}{'/' if path.is_dir() else ''}" for path in shown]


def read_line() -> str | None:
    """Return the next question or command, None at the end. Ctrl-C here only drops what was typed."""
    while True:
        try:
            return input("USER: ").strip() or None
        except EOFError:
            print()
            return None
        except KeyboardInterrupt:
            print()
            print_note("an empty line or Ctrl-D ends the chat")


def run_chat_command(chat: Chat, line: str) -> None:
    """Run a command such as `/image a.jpg`; one that fails leaves the chat as it was."""
    command, _, rest = line.partition(" ")
    rest = rest.strip()
    try:
        if command == "/image" and rest:
            chat.add_image(open_typed_image(rest))
            print_note(
                "this picture goes with your next question; /reset PATH_OR_URL would start over with it alone"
            )
        elif command == "/reset" and rest:
            image = open_typed_image(rest)
            chat.reset()
            chat.add_image(image)
            print_note("the talk is forgotten; the new picture goes with your next question")
        elif command == "/reset":
            chat.reset(keep_image=True)
            print_note("the talk is forgotten; the last picture goes with your next question")
        elif command == "/undo" and not rest:
            question = chat.undo()
            print_note("nothing has been asked" if question is None else f"taken back: {question}")
        elif command == "/help":
            print(COMMANDS, file=sys.stderr)
        elif command == "/image":
            print_note("say which: /image PATH_OR_URL")
        else:
            print_note(f"there is no command {line}; /help shows them")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print_note("stopped")


def open_typed_image(name: str) -> Image.Image:
    """Load the image at an address or path as typed or dragged into the terminal.

    Quotes, escaped spaces and ~ are understood. InputError if there is no image.
    """
    from llava.eval.run_llava import load_image

    if not name.startswith(("http://", "https://")) and not Path(name).exists():
        with contextlib.suppress(ValueError):  # a quote that is not closed belongs to the name
            words = shlex.split(name)
            name = str(Path(words[0]).expanduser()) if len(words) == 1 else name
    return load_image(name)


def stream_answer(chat: Chat, question: str, debug: bool) -> bool:
    """Stream the answer to stdout; Ctrl-C ends it, and what was streamed is kept.

    Returns:
        Whether it came to its end.
    """
    forgotten = chat.forgotten
    ended = False
    print("ASSISTANT: ", end="", flush=True)
    pieces = chat.ask(question)
    try:
        for piece in pieces:
            print(piece, end="", flush=True)
        print()
        ended = True
    except KeyboardInterrupt:
        print(" (stopped)")
    except InputError as error:  # this question cannot be asked; the next may
        print(f"\nerror: {error}", file=sys.stderr)
    finally:
        pieces.close()
    if chat.forgotten > forgotten:
        print_note(
            f"the conversation outgrew the model's context of {chat.runner.context_len} tokens: "
            f"{chat.forgotten} oldest exchange(s) forgotten; the picture is not"
        )
    if debug:
        print(f"\nprompt and answers so far:\n{chat.prompt}\n", file=sys.stderr)
    return ended


def print_decision(decision: Decision, chat: Chat, question: str) -> None:
    """Print what the decision says of the picture, where the question is one that it is for."""
    from llava.deciding.in_talk import decide_in_talk

    try:
        decided = decide_in_talk(decision, chat, question)
    except InputError as error:
        print(f"error: no decision: {error}", file=sys.stderr)
        return
    except KeyboardInterrupt:
        print_note("stopped before the decision")
        return
    if decided is not None:
        print(f"DECISION: {CALLS[decided.call]}, P(yes) {decided.p_yes:.6f}. {decision.guarantee}")


def print_note(text: str) -> None:
    """Print a remark about the chat on stderr, so that stdout holds questions and answers only."""
    print(f"({text})", file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_command(main)

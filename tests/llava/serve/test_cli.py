"""`python -m llava.serve.cli` as a user meets it: piped, on a terminal, and interrupted."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from llava.common.errors import run_command
from llava.common.files import write_json
from llava.inference.chat import Chat
from llava.inference.engine import Engine, Request
from llava.inference.model_runner import ModelRunner
from llava.model.builder import load_model
from llava.serve.cli import COMMAND_NAMES, COMMANDS, completions, main
from tests.support.certified import certified
from tests.support.paths import REPO
from tests.support.small_model import image, plain_text, save_random_model
from tests.support.warm import WarmProcess, run_warm


@pytest.fixture(scope="module")
def model(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_model(tiny_model_dir, tmp_path_factory.mktemp("models") / "random")


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "a.png"
    image(1).save(path)
    return path


def command(model: Path, photo: Path, *more: str) -> list[str]:
    """What follows `python`."""
    return ["-m", "llava.serve.cli", *arguments(model, photo, *more)]


def arguments(model: Path, photo: Path, *more: str) -> list[str]:
    return ["--model-path", str(model), "--image-file", str(photo), "--device", "cpu", *more]


def first_answer(model: Path, question: str, limit: int) -> str:
    return plain_text(load_model(model, device="cpu"), question, [image(1)], limit)


def test_piped_questions_and_an_empty_line(model: Path, photo: Path, tmp_path: Path) -> None:
    """And without peft, which takes about as long to import as torch: a chat waits for it."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command(model, photo, "--max-new-tokens", "8")],
        input="What is it?\nSure?\n\nnever asked\n",
        capture_output=True, text=True, timeout=120, cwd=REPO,
        env={**os.environ, "HOME": str(tmp_path), "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second, last = done.stdout.splitlines()
    assert first == f"USER: ASSISTANT: {first_answer(model, 'What is it?', 8)}"
    assert second.startswith("USER: ASSISTANT: ")
    assert last == "USER: exit..."
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]  # nothing written
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "torch" in imported and "peft" not in imported


@pytest.mark.slow
def test_end_of_input_ends_the_chat_and_debug_shows_the_prompt(model: Path, photo: Path) -> None:
    done = run_warm(*command(model, photo, "--max_new_tokens", "4", "--debug"), input="What is it?\nSure?")
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("exit...")
    assert "<image>\nWhat is it? ASSISTANT: " in done.stderr  # the second prompt holds the first turn
    assert "USER: Sure? ASSISTANT: " in done.stderr


@pytest.mark.slow
def test_a_question_that_cannot_be_asked_does_not_end_the_chat(model: Path, photo: Path) -> None:
    done = run_warm(*command(model, photo, "--max-new-tokens", "4"), input="say </s> now\nWhat is it?\n")
    assert done.returncode == 0
    assert "error: turn 0 contains '</s>'" in done.stderr
    assert f"ASSISTANT: {first_answer(model, 'What is it?', 4)}\n" in done.stdout


@pytest.mark.slow
def test_commands(model: Path, photo: Path, tmp_path: Path) -> None:
    """Piped in: the answers are those of a chat in which the same was done by hand."""
    other = tmp_path / "another one.png"
    image(2).save(other)
    lines = [
        "/undo", "What is it?", "/undo", "Really?", f"/image '{other}'", "Which is darker?", "/reset",
        "What is it?", f"/reset {photo}", "What is it?", "/image nowhere.png", "/image", "/frobnicate now",
        "/help", "Sure?", "/exit", "never asked",
    ]  # fmt: skip
    done = run_warm(*command(model, photo, "--max-new-tokens", "6"), input="\n".join(lines))
    assert done.returncode == 0, done.stderr

    chat = Chat(ModelRunner(load_model(model, device="cpu")), max_new_tokens=6)
    expected = []
    chat.add_image(image(1))
    expected += ["".join(chat.ask("What is it?"))]
    chat.undo()
    expected += ["".join(chat.ask("Really?"))]
    chat.add_image(image(2))
    expected += ["".join(chat.ask("Which is darker?"))]
    for shown in (2, 1):
        chat.reset()
        chat.add_image(image(shown))
        expected += ["".join(chat.ask("What is it?"))]
    expected += ["".join(chat.ask("Sure?"))]
    answers = [line.split("ASSISTANT: ")[1] for line in done.stdout.splitlines() if "ASSISTANT" in line]
    assert answers == expected and len(set(expected)) == 5
    assert done.stdout.endswith("USER: exit...\n")
    stderr = done.stderr
    assert "(nothing has been asked)" in stderr and "(taken back: What is it?)" in stderr
    assert "error: nowhere.png: no such picture" in stderr and "(say which: /image PATH_OR_URL)" in stderr
    assert "(there is no command /frobnicate now; /help shows them)" in stderr
    assert "/undo                take back" in stderr


def test_a_decision_is_made_where_its_question_is_asked(model: Path, photo: Path, tmp_path: Path) -> None:
    """As for the calibration: each picture by itself, whatever was said and shown before."""
    wording = "Is there a defect?"
    requests = [Request(seed, wording, [image(seed)], ("yes", "no")) for seed in (1, 2)]
    results = Engine(load_model(model, device="cpu")).answer(requests, max_new_tokens=1)
    first, second = (result.choices["yes"] for result in results if result.choices)
    low, high = sorted((first, second))
    assert high - low > 1e-4
    decision = certified(model, wordings=[wording, "A defect?"], sound_below=high, defect_from=high)
    write_json(tmp_path / "decision.json", decision)
    image(2).save(tmp_path / "b.png")
    lines = [wording, "What is it?", f"/image {tmp_path / 'b.png'}", " Is  there a defect? ", f"{wording}!"]
    done = run_warm(
        *command(model, photo, "--max-new-tokens", "4", "--decision", str(tmp_path / "decision.json")),
        input="\n".join(lines),
    )
    assert done.returncode == 0, done.stderr
    said = [line.partition(": ")[2] for line in done.stdout.splitlines() if line.startswith("DECISION")]
    assert len(said) == 2 and done.stdout.count("ASSISTANT") == 4
    for text, p_yes in zip(said, (first, second), strict=True):
        call, shown, promise = re.fullmatch(r"(.*), P\(yes\) ([\d.]+)\. (.*)", text).groups()  # type: ignore[union-attr]
        assert float(shown) == pytest.approx(p_yes, abs=2e-6)
        assert (call, promise) == ("sound" if p_yes == low else "a defect", "It is promised.")
    assert done.stderr.count('decides where you ask "Is there a defect?" or "A defect?"') == 1


class OutputReader:
    """Collects what a process writes, and waits for text in it."""

    def __init__(self, descriptor: int) -> None:
        self.text = ""
        self._descriptor = descriptor
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._descriptor, 4096)
            except OSError:  # the terminal's other end is gone
                return
            if not data:
                return
            self.text += data.decode(errors="replace")

    def wait_for_more(self, start: int) -> None:
        """Until anything stands behind `start`."""
        deadline = time.monotonic() + 90
        while len(self.text) <= start:
            assert time.monotonic() < deadline, "nothing came"
            time.sleep(0.02)

    def wait_for(self, text: str, start: int = 0) -> int:
        """Until `text` appears behind `start`; where it ends."""
        deadline = time.monotonic() + 90
        while (at := self.text.find(text, start)) < 0:
            assert time.monotonic() < deadline, f"{text!r} did not come; had {self.text[start:][-300:]!r}"
            time.sleep(0.005)
        return at + len(text)


@contextmanager
def on_terminal(arguments: list[str]) -> Iterator[tuple[WarmProcess, int, OutputReader]]:
    """The command with a pseudo-terminal of its own, Ctrl-C and Ctrl-D as typed."""
    pty = pytest.importorskip("pty", reason="needs a Unix terminal")
    ours, theirs = pty.openpty()
    process = WarmProcess(*arguments, stdin=theirs, stdout=theirs, stderr=theirs, terminal=True)
    os.close(theirs)
    try:
        yield process, ours, OutputReader(ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_tab_completes_commands_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "our photos"))
    (tmp_path / "our photos").mkdir()
    for name in ("a 1.jpg", "a 2.jpg", "b.jpg", ".hidden.jpg"):
        (tmp_path / "our photos" / name).touch()
    assert {line.split()[0] for line in COMMANDS.splitlines()} == {name.strip() for name in COMMAND_NAMES}
    assert completions("/") == list(COMMAND_NAMES)
    assert completions("/im") == ["/image "]
    assert completions("/image ") == ["/image our photos/"]
    assert completions("/image our photos/a ") == [f"/image our photos/a {n}.jpg" for n in (1, 2)]
    assert completions("/reset ~/b") == ["/reset ~/b.jpg"]
    assert completions(f"/image {tmp_path}/our") == [f"/image {tmp_path}/our photos/"]
    assert completions("/image our photos/.") == ["/image our photos/.hidden.jpg"]
    for line in ("Is it", "/undo ", "/image nowhere/a", "/nothing a", ""):
        assert completions(line) == []


@pytest.mark.slow
def test_ctrl_c_stops_the_answer_and_not_the_chat(model: Path, photo: Path) -> None:
    """On a terminal: the image and the stopped answer stay in the conversation."""
    full_answer = first_answer(model, "Describe it.", 1500)
    with on_terminal(command(model, photo, "--max-new-tokens", "1500", "--debug")) as (
        process,
        terminal,
        out,
    ):
        out.wait_for("USER: ")
        os.write(terminal, b"/un\t\n")
        out.wait_for("USER: ", out.wait_for("(nothing has been asked)"))
        os.write(terminal, b"Describe it.\n")
        at = out.wait_for("ASSISTANT: ")
        out.wait_for(full_answer[:20], at)  # it streams
        os.write(terminal, b"\x03")
        at = out.wait_for("(stopped)", at)
        partial = out.text[out.text.index("ASSISTANT: ") + 11 : at]
        assert len(partial) < len(full_answer)
        at = out.wait_for("USER: ", out.wait_for("</s>", at))  # the debug prompt, then the next question
        os.write(terminal, b"And?\n")
        at = out.wait_for("ASSISTANT: ", at)
        out.wait_for_more(at)  # stopped before its first word, the question would be forgotten
        os.write(terminal, b"\x03")
        at = out.wait_for("(stopped)", at)
        out.wait_for(f"ASSISTANT: {full_answer[:20]}", at)  # the second prompt holds the stopped answer
        at = out.wait_for("USER: ", out.wait_for("USER: And?", at))
        os.write(terminal, b"\x03")  # at the prompt it ends nothing
        at = out.wait_for("USER: ", out.wait_for("Ctrl-D ends the chat", at))
        os.write(terminal, b"\x04")
        out.wait_for("exit...", at)
        assert process.wait(timeout=30) == 0


@pytest.mark.slow
def test_interrupt_signal_with_piped_input(model: Path, photo: Path) -> None:
    (asked, ask), (said, say) = os.pipe(), os.pipe()
    process = WarmProcess(*command(model, photo, "--max-new-tokens", "1500"), stdin=asked, stdout=say)
    os.close(asked)
    os.close(say)
    out = OutputReader(said)
    try:
        os.write(ask, b"Describe it.\n")
        at = out.wait_for(first_answer(model, "Describe it.", 20)[:10], out.wait_for("ASSISTANT: "))
        process.send_signal(signal.SIGINT)
        out.wait_for("(stopped)", at)
        os.write(ask, b"\n")
        out.wait_for("exit...")
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ask)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--image-file", "nowhere.jpg"), "nowhere.jpg: no such picture"),
        (("--image-file", "http://127.0.0.1:9/a.jpg"), "cannot be fetched"),
        (("--model-path", "nowhere"), "nowhere: no such model folder"),
        (("--conv-mode", "v9"), "unknown conv mode 'v9'"),
        (("--temperature", "-1"), "-1 is no temperature"),
        (("--decision", "nowhere.json"), "nowhere.json"),
        (("--decision", str(REPO / "playground/tiny-llava/config.json")), "is not a decision of certify"),
    ],
)
def test_bad_arguments_are_one_line(
    model: Path, photo: Path, more: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run_command(lambda: main(arguments(model, photo, *more)))
    assert ended.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"fingerprint": "sha256:other"}, "certified for another model (red, sha256:other)"),
        ({"fingerprint": None}, "certified for the model 'red', not for 'random'"),
        ({"unit": "tile"}, "certified for each tile, and here each picture is asked"),
    ],
)
def test_a_decision_for_something_else_is_refused(
    model: Path,
    photo: Path,
    tmp_path: Path,
    changed: dict[str, Any],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_json(tmp_path / "decision.json", certified(model, **changed))
    with pytest.raises(SystemExit) as ended:
        run_command(lambda: main(arguments(model, photo, "--decision", str(tmp_path / "decision.json"))))
    assert ended.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_bad_argument_ends_the_command(model: Path, photo: Path) -> None:
    done = subprocess.run(
        [sys.executable, *command(model, photo, "--image-file", "nowhere.jpg")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2 and done.stderr == "error: nowhere.jpg: no such picture\n"

"""What the web page's command refuses, and its private folder."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llava.common.errors import InputError
from llava.serve.page.private_folder import PREFIX, PrivateFolder
from llava.serve.web import main, read_users
from tests.support.commands import run_here


def test_a_port_in_use_is_one_line(tiny_model_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"--port {port}: .*in use"):
            main(["--model-path", str(tiny_model_dir), "--port", str(port)])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--report", "."], "--report .: no such file; name a report.html"),
        (["--max-new-tokens", "1"], "--max-new-tokens must be above 1"),
        (["--idle-minutes", "nan"], "--idle-minutes must be above 0"),
        (["--batch-size", "0"], "--batch-size: 0 is too low; give 1 or more"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], said: str) -> None:
    done = run_here(main, "--model-path", "absent", "--port", "0", *arguments)
    assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1


def test_a_segmenter_or_painter_that_is_none_is_one_line(tmp_path: Path, tiny_model_dir: Path) -> None:
    pytest.importorskip("gradio")
    pytest.importorskip("diffusers")
    for flag, said in (("--segmenter", "no config.json in it"), ("--diffusion-model", "no model_index.json")):
        model = ("--model-path", str(tiny_model_dir), "--port", "0")
        done = run_here(main, *model, flag, str(tmp_path))
        assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1


def test_without_opencv_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tiny_model_dir: Path
) -> None:
    pytest.importorskip("gradio")
    modules: Any = sys.modules
    monkeypatch.setitem(modules, "cv2", None)
    with pytest.raises(InputError, match=r"this needs OpenCV: .*synth"):
        main(["--model-path", str(tiny_model_dir), "--port", "0", "--diffusion-model", "absent"])


def test_users_are_read_from_a_file(put: Callable[..., Path]) -> None:
    assert read_users(put("users.txt", "ann:a:b\n\n bob :secret\n")) == [("ann", "a:b"), ("bob", "secret")]
    with pytest.raises(InputError, match="line 2: expected NAME:PASSWORD"):
        read_users(put("users.txt", "ann:x\nbob\n"))
    with pytest.raises(InputError, match="for each user"):
        read_users(put("users.txt", "\n"))
    with pytest.raises(InputError, match="line 2: ann has a password already"):
        read_users(put("users.txt", "ann:x\nann:y\n"))
    with pytest.raises(InputError, match=r"absent\.txt: no such file"):
        read_users(Path("absent.txt"))
    assert read_users(put("users.txt", "\ufeffann:x\n")) == [("ann", "x")]  # as Windows' editor saves it


def test_the_folder_is_private_and_a_killed_process_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    killed = "from llava.serve.page.private_folder import PrivateFolder as F; import os; f = F();"
    killed += "(f.path / 'photo.jpg').write_bytes(b'x'); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", killed], env=os.environ | {"TMPDIR": str(tmp_path)}, check=False)
    (left,) = tmp_path.glob(f"{PREFIX}*/photo.jpg")
    first = PrivateFolder()
    assert not left.parent.exists()
    assert stat.S_IMODE(first.path.stat().st_mode) == 0o700
    second = PrivateFolder()  # of another process: that of the first stays
    assert first.path.exists()
    (second.path / "a").mkdir()
    inside = second.path / "a" / "photo.jpg"
    inside.write_bytes(b"x")
    outside = tmp_path / "mine.jpg"
    outside.write_bytes(b"x")
    second.delete(second.path / ".." / "mine.jpg")
    second.delete(inside)
    assert outside.exists() and not inside.parent.exists()
    first.wipe()
    second.wipe()
    assert [path.name for path in tmp_path.iterdir()] == ["mine.jpg"]


def test_without_gradio_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tiny_model_dir: Path
) -> None:
    modules: Any = sys.modules
    monkeypatch.setitem(modules, "gradio", None)
    before = tempfile.gettempdir(), dict(os.environ)
    with pytest.raises(InputError, match=r"the page needs: .*web"):
        main(["--model-path", str(tiny_model_dir), "--port", "0"])
    assert (tempfile.gettempdir(), dict(os.environ)) == before

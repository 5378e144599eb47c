"""Processes of tests.support.warm are told from Python's own by nothing that a test asks for."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.warm import run_as_torchrun, run_warm, warm_program

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("pass", 0),
        ("raise SystemExit(3)", 3),
        ("raise SystemExit('no')", 1),
        ("1 / 0", 1),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -9),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -15),
    ],
)
def test_it_ends_with_pythons_code(code: str, expected: int) -> None:
    done = run_warm("-c", code)
    assert done.returncode == expected
    assert ("ZeroDivisionError" in done.stderr) == (code == "1 / 0")


def test_it_has_its_own_input_output_folder_and_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = (
        "import atexit, os, sys, threading, time\n"
        "atexit.register(lambda: print('the end'))\n"
        "threading.Thread(target=lambda: (time.sleep(0.1), print('a thread'))).start()\n"
        "print(sys.argv, input(), os.getcwd(), os.environ, file=sys.stderr)\n"
    )
    done = run_warm("-c", code, "one", input="two\n", env={"NAME": "three"})
    assert done.stdout == "a thread\nthe end\n"
    assert done.stderr == f"['-c', 'one'] two {tmp_path} environ({{'NAME': 'three'}})\n"
    Path("program.py").write_text("import sys; print(__name__, sys.argv)")
    assert run_warm("program.py", "one").stdout == "__main__ ['program.py', 'one']\n"


def test_one_that_fails_ends_the_others() -> None:
    code = "import os, time; os.environ['RANK'] == '1' and exit(2); time.sleep(600)"
    assert [done.returncode for done in run_as_torchrun(2, "-c", code)] == [-9, 2]
    assert "RANK" not in os.environ


def test_a_program_is_warm_in_a_pipe_and_ends_with_its_code(tmp_path: Path) -> None:
    code = "import sys; sys.stdout.reconfigure(errors='replace'); print(*sys.argv, input()); sys.exit(3)"
    with warm_program(tmp_path / "program", "-c", code):
        pipe = "echo two | ./program one | tr a-z A-Z; exit ${PIPESTATUS[1]}"
        done = subprocess.run(["bash", "-c", pipe], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "-C ONE TWO\n")

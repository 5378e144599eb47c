"""What a command tells of what goes wrong."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from llava.common.errors import InputError, run_command


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (InputError("a.json: no such file"), "error: a.json: no such file\n"),
        (OSError(errno.ENOSPC, "No space left on device"), "error: No space left on device\n"),
        (PermissionError(errno.EACCES, "Permission denied", "a.json"), "error: a.json: Permission denied\n"),
    ],
)
def test_bad_input_and_the_disks_refusals_are_one_line(
    error: Exception, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> int:
        raise error

    with pytest.raises(SystemExit) as ended:
        run_command(main)
    assert ended.value.code == 2 and capsys.readouterr().err == expected


@pytest.mark.parametrize(
    "error", [FileNotFoundError(errno.ENOENT, "No such file", "a.json"), OSError("odd"), ValueError("odd")]
)
def test_a_mistake_of_the_program_keeps_its_traceback(error: Exception) -> None:
    def main() -> int:
        raise error

    with pytest.raises(type(error)):
        run_command(main)


def test_a_name_that_no_file_can_have(repo: Path) -> None:
    flags = "-m eval.infer --model-path a --image-folder . --question-file q --answers-file"
    command = [sys.executable, *flags.split(), "x" * 300]
    done = subprocess.run(command, cwd=repo, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr == f"error: {'x' * 300}: File name too long\n"


def test_output_that_nobody_reads_any_more_is_no_traceback(repo: Path) -> None:
    many_lines = "run_command(lambda: print('line\\n' * 100_000, flush=True))"
    program = f"from llava.common.errors import run_command; {many_lines}"
    command = f'"{sys.executable}" -c "{program}" | head -1'
    done = subprocess.run(["bash", "-c", command], cwd=repo, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("line\n", "")


def test_another_broken_pipe_than_that_of_the_output_is_a_mistake_of_the_program(repo: Path) -> None:
    program = "import os\ndef main():\n r, w = os.pipe(); os.close(r); os.write(w, b'x')\n"
    program += "from llava.common.errors import run_command; run_command(main)"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=repo, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.endswith("BrokenPipeError: [Errno 32] Broken pipe\n")

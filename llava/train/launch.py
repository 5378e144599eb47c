"""`python -m llava.train.launch`: the earlier path of llava.common.launch, kept for scripts that name it."""

from llava.common.errors import run_command
from llava.common.launch import main, run_process

__all__ = ["main", "run_process"]

if __name__ == "__main__":
    run_command(main)

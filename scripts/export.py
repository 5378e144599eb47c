"""Write a model for other clients: `llava-inspect export` from a checkout."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, wherever it is called from

from llava.common.errors import run_command
from llava_inspect.export import main

if __name__ == "__main__":
    run_command(main)

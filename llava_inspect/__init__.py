"""`llava-inspect`: one command over data_prep, llava and eval."""

import llava  # noqa: F401  # first of all it finds the right Python

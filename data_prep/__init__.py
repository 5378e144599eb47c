import llava  # noqa: F401  # first of all it finds the right Python

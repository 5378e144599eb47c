"""The Chromium in which tests look at pages."""

from __future__ import annotations

import shutil


def installed_chromium() -> str | None:
    """Return the system's Chromium; None where there is none."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

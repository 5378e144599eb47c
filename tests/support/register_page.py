"""A survey's register in a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llava.common.corrections import Corrections

Open = Callable[..., Any]


@contextmanager
def watched_register(browser: Any, page: Path) -> Iterator[Open]:
    """Yield what opens a register in a tab; what it asks of any host, or complains of, is an error."""
    contexts: list[Any] = []
    wrong: list[str] = []

    def open_page(width: int = 1200, context: Any = None, **options: Any) -> Any:
        context = context or browser.new_context(
            viewport={"width": width, "height": 800}, accept_downloads=True, **options
        )
        contexts.append(context)
        tab = context.new_page()
        tab.on("request", lambda request: wrong.append(request.url))
        tab.on("console", lambda message: wrong.append(f"error: {message.text}"))
        tab.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        tab.goto(page.as_uri())
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert not [what for what in wrong if not what.startswith(("file:", "data:", "blob:"))]


def current(tab: Any) -> str | None:
    """Return the id of the current finding."""
    return tab.evaluate("document.querySelector('figure.current')?.dataset.id")


def said(tab: Any, name: str) -> str:
    """Return what the card of a finding says that a person said."""
    return tab.text_content(f"#f-{name} .verdict")


def save(tab: Any, path: Path) -> Corrections:
    """Save the corrections as `path`."""
    with tab.expect_download() as download:
        tab.click("#save")
    download.value.save_as(path)
    assert download.value.suggested_filename == "corrections-0123456789abcdef.json"
    return Corrections.model_validate_json(path.read_text(encoding="utf-8"))

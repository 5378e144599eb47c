"""Parsing of an HTML report as a browser would read it, for tests."""

import base64
import hashlib
import re
from html.parser import HTMLParser

HOSTILE = [  # names that files and classes may have
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"'><svg onload=alert(1)>",
    "&lt;b&gt; & </td></table>",
    "\u202egnp.exe \x00\x1b[31m",
    "caf\udce9",
]


class Page(HTMLParser):
    """Holds what a browser would read: elements with their attributes, and the text."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._hidden = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._hidden = tag in ("style", "script")

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def check_alone(text: str, *more: str) -> Page:
    """Check that the page loads nothing and runs nothing but one script whose hash the policy names.

    `more` are elements that it may have beyond those of every report.
    """
    found = Page(text)
    allowed = {
        *("html", "head", "meta", "title", "style", "body", "header", "nav", "main", "section", "footer"),
        *("h1", "h2", "h3", "p", "a", "b", "i", "div", "span", "ul", "li", "dl", "dt", "dd", "details"),
        *("summary", "table", "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "img", "svg"),
        *("rect", "br", *more),
    }
    for name, attributes in found.elements:
        if (name, attributes.get("stroke")) != ("title", None):  # <title> of a box is inside <svg>
            assert name in allowed
        assert not [key for key in attributes if key.startswith("on")]
        assert (attributes.get("src") or "data:").startswith("data:image/jpeg;base64,"[:5])
        assert (attributes.get("href") or "#").startswith("#")
        assert "url(" not in (attributes.get("style") or "")
    policy = next(item["content"] for item in found.named("meta") if "http-equiv" in item)
    assert policy and policy.startswith("default-src 'none';")
    assert len(found.named("script")) == text.count("<script")
    if scripts := re.findall(r"<script>(.*?)</script>", text, re.DOTALL):
        (script,) = scripts
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert policy.endswith(f"; script-src 'sha256-{digest}'") and not found.named("script")[0]
    else:
        assert "script" not in policy
    assert "url(" not in text and "@import" not in text
    return found

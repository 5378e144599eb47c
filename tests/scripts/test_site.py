"""The documentation site: it builds without a warning, and says what the pages on GitHub and the code say."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from data_prep.recipe.schema import Recipe
from llava.train.config import TrainSettings
from llava_inspect.commands import COMMANDS

COUNTED = {"h1", "h2", "h3", "img", "li", "ol", "pre", "table", "td", "ul"}


class Elements(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.counts[tag] += tag in COUNTED


@pytest.fixture(scope="module")
def build(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the gathered pages in docs/ and the site in site/."""
    folder = tmp_path_factory.mktemp("build")
    for command in (
        [sys.executable, repo / "scripts" / "site_pages.py", folder / "docs"],
        [Path(sys.executable).parent / "zensical", "build", "--strict"],
    ):
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=120, check=False
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_built_as_github_shows_it(build: Path) -> None:
    """Python-Markdown and CommonMark read some lists and tables otherwise: then one of them is broken."""
    pages = sorted((build / "docs").rglob("*.md"))
    assert len(pages) > 40
    for page in pages:
        text = re.sub(r"\A---\n.*?\n---\n", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        html = (
            (build / "site" / page.relative_to(build / "docs"))
            .with_suffix(".html")
            .read_text(encoding="utf-8")
        )
        [article] = re.findall(r"<article.*?</article>", html, re.DOTALL)
        expected = Elements(MarkdownIt("commonmark").enable("table").render(text)).counts
        assert Elements(article).counts == expected, page.name


def test_nothing_is_fetched_from_elsewhere(build: Path) -> None:
    for page in (build / "site").rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"?https?:", text), page.name


def test_the_reference_names_every_command_and_field(build: Path) -> None:
    commands = (build / "docs" / "commands.md").read_text(encoding="utf-8")
    for command in COMMANDS:
        assert f"\nusage: llava-inspect {command.name} " in commands
    for name, settings in (("training_settings", TrainSettings), ("recipe_fields", Recipe)):
        text = (build / "docs" / f"{name}.md").read_text(encoding="utf-8")
        assert set(settings.model_fields) <= set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    row = "| `warmup_ratio` | number ≥ 0, < 1 | `0.03` | The share of steps over which the learning rate"
    assert row in (build / "docs" / "training_settings.md").read_text(encoding="utf-8")


def test_code_that_a_page_links_to_can_be_read(build: Path, repo: Path) -> None:
    copy = build / "site" / "files" / "eval" / "scoring" / "schema.py.txt"
    assert copy.read_bytes() == (repo / "eval" / "scoring" / "schema.py").read_bytes()

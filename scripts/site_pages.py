"""Gather the pages of the documentation site in a folder: `python scripts/site_pages.py build/docs`.

Beside the pages of docs/ these are the README, which is the first page, other pages and files of the
repository that are linked to, and the reference, which `reference_pages` makes from the code. docs/index.md,
the map of all pages, is also the site's navigation: it goes into zensical.toml beside the folder, with what
docs/site.toml says. A page is the same here and on GitHub but for where its links lead.
"""

from __future__ import annotations

import base64
import json
import posixpath
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, wherever it is called from

from reference_pages import REFERENCE

from llava.common.files import atomic_folder, read_text, write_text

ROOT = Path(__file__).resolve().parents[1]
MAP = "docs/index.md"
PLACES = {
    "README.md": "index.md",
    MAP: "all_pages.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "playground/tiny-llava/README.md": "tiny_llava.md",
    "llava/train/config.py": "training_settings.md",
    "docs/tutorials/road.ipynb": "tutorials/road.md",
}
"""Pages that lie elsewhere in the repository or have another name in docs/; and a file of code whose
content a page shows."""
_CODE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
_TRANSLATED = re.compile(r"\.(ko|ru)\.md$")
_LINK = re.compile(r'(?P<before>\]\(|src=")(?P<target>[^)"#\s]+)')


def navigation(text: str) -> list[dict[str, object]]:
    """Return the navigation by the map's `text`: a section for each of its headings."""
    nav: list[dict[str, object]] = [{"Start here": PLACES["README.md"]}, {"All pages": PLACES[MAP]}]
    for section in text.split("\n## ")[1:]:
        title, _, body = section.partition("\n")
        links = re.findall(r"\]\(([^)#]+\.(?:md|ipynb))\)", body)
        nav.append({title: [place_of(posixpath.normpath(f"docs/{link}")) for link in links]})
    nav.append({"Reference": [*REFERENCE]})
    return nav


def toml(value: object) -> str:
    """Return a list, a table or a text as TOML has it in one line."""
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{toml(key)} = {toml(part)}' for key, part in value.items())}}}"
    return json.dumps(value, ensure_ascii=False)


def place_of(path: str) -> str:
    """Return where a file of the repository lies in the site: code as text, which a browser shows."""
    if path in PLACES:
        return PLACES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"files/{path}.txt" if path.endswith(".py") else f"files/{path}"


def links_of(origin: str, text: str) -> Iterator[tuple[str, str]]:
    """Yield each link of a page to a file, as written and as the path of that file in the repository."""
    for part in _CODE.split(text):
        for found in () if part.startswith("```") else _LINK.finditer(part):
            if not re.match(r"[a-z]+:", found["target"]):
                yield found["target"], posixpath.normpath(str(PurePosixPath(origin).parent / found["target"]))


def page(origin: str, text: str) -> str:
    """Return the text of a page with its links led to where the files lie in the site."""
    here = posixpath.dirname(place_of(origin)) or "."
    led = {link: posixpath.relpath(place_of(target), here) for link, target in links_of(origin, text)}

    def lead(found: re.Match[str]) -> str:
        return found["before"] + led.get(found["target"], found["target"])

    parts = _CODE.split(text)
    shown = "".join(part if part.startswith("```") else _LINK.sub(lead, part) for part in parts)
    # Without the mark what an element of HTML holds is not read as Markdown.
    shown = shown.replace("<details>", '<details markdown="1">')
    if translated := _TRANSLATED.search(origin):  # for screen readers, and for the choice of fonts
        title, _, body = shown.partition("\n\n")
        shown = f'{title}\n\n<div lang="{translated[1]}" markdown="1">\n\n{body}\n\n</div>\n'
    return shown


def notebook_text(path: Path, place: Path) -> str:
    """Return a notebook as Markdown for `place`, beside which its pictures are written."""
    parts = []
    pictures = 0
    for cell in json.loads(read_text(path))["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text)
            continue
        magic, _, rest = text.partition("\n")
        parts.append(f"```bash\n{rest}\n```" if magic == "%%bash" else f"```python\n{text}\n```")
        for output in cell["outputs"]:
            shown = {name: "".join(data) for name, data in output.get("data", {}).items()}
            if output["output_type"] == "stream":
                parts.append(f"```text\n{''.join(output['text']).strip()}\n```")
            elif "image/jpeg" in shown:
                pictures += 1
                picture = place.with_name(f"{place.stem}_{pictures}.jpg")
                picture.parent.mkdir(parents=True, exist_ok=True)
                picture.write_bytes(base64.b64decode(shown["image/jpeg"]))
                parts.append(f"![what the cell shows]({picture.name})")
            else:
                parts.append(shown.get("text/markdown") or f"```text\n{shown['text/plain']}\n```")
    return "\n\n".join(parts) + "\n"


def gather(folder: Path) -> None:
    """Write all pages, and the files that they show or link to, into `folder`."""
    origins = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").rglob("*.md"))]
    origins += [origin for origin in PLACES if origin.endswith(".md") and origin not in origins]
    files = {"docs/site.css"}
    for origin in origins:
        text = read_text(ROOT / origin)
        write(folder / place_of(origin), page(origin, text))
        files |= {target for _, target in links_of(origin, text) if target not in {*origins, *PLACES}}
    for notebook in sorted((ROOT / "docs").rglob("*.ipynb")):
        origin = notebook.relative_to(ROOT).as_posix()
        place = folder / place_of(origin)
        write(place, page(origin, notebook_text(notebook, place)))
    for name, make in REFERENCE.items():
        write(folder / name, make())
    for path in sorted(files):
        (folder / place_of(path)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, folder / place_of(path))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)


def main(argv: list[str]) -> int:
    [target] = argv
    with atomic_folder(Path(target), overwrite=True) as folder:
        gather(folder)
    nav = f"[project]\nnav = {toml(navigation(read_text(ROOT / MAP)))}\n"
    settings = read_text(ROOT / "docs" / "site.toml").replace("[project]\n", nav, 1)
    write_text(Path(target).parent / "zensical.toml", settings)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

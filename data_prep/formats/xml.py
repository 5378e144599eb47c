"""XML label files, read safely: no entity is ever expanded and nothing outside the file is looked at."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from xml.etree.ElementTree import Element
from xml.parsers.expat import ErrorString, ExpatError

from llava.common.errors import InputError


def parse(file: Path, format: str) -> Element:
    """The root of an XML file; InputError naming it, with line and column, if it is cut short or malformed.

    `format` is what the user calls the format, for the message.
    """
    try:
        data = file.read_bytes()
        parser = ElementTree.XMLParser(target=_TreeBuilder())
        parser.feed(data)
        return parser.close()
    except _Doctype:
        raise InputError(f"{file}: has a DOCTYPE, which {format} does not use; remove it") from None
    except ElementTree.ParseError as error:
        line, column = error.position
        why = ErrorString(error.code) or "not well-formed"
        cut = "; it looks cut short" if not data.rstrip().endswith(b">") or "no element" in why else ""
        raise InputError(f"{file}, line {line}, column {column}: not valid XML ({why}{cut})") from None
    except (ExpatError, LookupError, ValueError) as error:  # an encoding that expat does not know
        raise InputError(f"{file}: not valid XML ({error})") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None


def starts_with(path: Path, tag: str) -> bool:
    """Whether `tag` is the file's first tag after comments and the like; looks at its first bytes only."""
    try:
        with path.open("rb") as file:
            start = re.sub(rb"(?s)<[?!].*?>", b"", file.read(2048))
    except OSError:
        return False
    return re.match(rb"(?s)[^<]*<" + tag.encode() + rb"[\s>]", start) is not None


class _Doctype(Exception):
    pass


class _TreeBuilder(ElementTree.TreeBuilder):
    def doctype(self, *_: object) -> None:
        """Entities can only be declared in a DOCTYPE, and no label format has one: refuse it where it
        begins, before anything could be expanded."""
        raise _Doctype

"""Read XML label files safely: no entity is ever expanded and no other file is opened."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from xml.etree.ElementTree import Element
from xml.parsers.expat import ErrorString, ExpatError

from llava.common.errors import InputError

_MULTI_BYTE = {
    "gbk",
    "gb2312",
    "gb18030",
    "big5",
    "shift_jis",
    "euc-jp",
    "euc-kr",
}  # expat knows none of them


def parse_xml(file: Path, format: str) -> Element:
    """Return the root of an XML file.

    `format` is what users call the format, for the message. InputError naming the file, with line and column,
    if it is cut short or malformed.
    """
    try:
        data = file.read_bytes()
        declared = re.match(rb"<\?xml[^>]*?encoding\s*=\s*['\"]([\w.-]+)", data)
        encoding = declared[1].decode().lower() if declared else ""
        is_multi_byte = encoding in _MULTI_BYTE
        parser = ElementTree.XMLParser(target=_TreeBuilder(), encoding="utf-8" if is_multi_byte else None)
        parser.feed(data.decode(encoding).encode() if is_multi_byte else data)
        return parser.close()
    except _DoctypeError:
        raise InputError(f"{file}: has a DOCTYPE, which {format} does not use; remove it") from None
    except ElementTree.ParseError as error:
        line, column = error.position
        reason = ErrorString(error.code) or "not well-formed"
        cut = "; it looks cut short" if not data.rstrip().endswith(b">") or "no element" in reason else ""
        raise InputError(f"{file}, line {line}, column {column}: not valid XML ({reason}{cut})") from None
    except (ExpatError, LookupError, ValueError) as error:  # an encoding that expat does not know
        raise InputError(f"{file}: not valid XML ({error})") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None


def has_root(path: Path, tag: str) -> bool:
    """Return whether the file's first tag, after comments and declarations, is `tag`.

    Only the first bytes of the file are read.
    """
    try:
        with path.open("rb") as file:
            start = re.sub(rb"(?s)<[?!].*?>", b"", file.read(1 << 16))
    except OSError:
        return False
    return re.match(rb"(?s)[^<]*<" + tag.encode() + rb"[\s>]", start) is not None


def is_labelme(path: Path) -> bool:
    """Return whether the file is XML of MIT's LabelMe, which has the same root as Pascal VOC."""
    if not has_root(path, "annotation"):
        return False
    with path.open("rb") as file:
        start = file.read(1 << 16)
    marks = (b"<pt>", b"<segm>", b"LabelMe Webtool", b"<hasparts")
    return b"<bndbox>" not in start and any(mark in start for mark in marks)


class _DoctypeError(Exception):
    pass


class _TreeBuilder(ElementTree.TreeBuilder):
    def doctype(self, *_: object) -> None:
        """Refuse a DOCTYPE where it begins, before anything could be expanded: entities can only be declared
        in it, and no label format has one."""
        raise _DoctypeError

"""Read the XML that describes an image in VOC's format."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from xml.etree import ElementTree

from detector.types import Size

Number = TypeVar("Number", int, float)

CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class Description:
    """What an XML says about its image."""

    filename: str
    """the image's, without folders; empty if it is not given"""
    size: Size
    names: list[str]
    """the class of each object"""
    corners: list[tuple[float, ...]]
    """xmin, ymin, xmax, ymax of each object, as in the file"""
    flags: list[tuple[bool, bool, bool]]
    """`difficult` and `truncated` of each object, and whether it is a crowd"""
    points: int
    """how many of the coordinates are written with a decimal point"""


def parse(path: Path) -> ElementTree.Element:
    """Parse an XML, in whatever encoding it declares or its byte order mark says.

    Raises:
        ValueError: it is not XML.
    """
    content = path.read_bytes()
    try:
        return ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise ValueError(f"{path}: not XML ({error})") from error
    except (ValueError, LookupError) as error:
        declared = re.match(rb"<\?xml[^>]*encoding\s*=\s*[\"']([\w.-]+)[^>]*\?>", content)
        if declared is None:
            raise ValueError(f"{path}: not XML ({error})") from error
        return _decoded(path, content[declared.end() :], declared[1].decode("ascii"))


def _decoded(path: Path, content: bytes, encoding: str) -> ElementTree.Element:
    """Parse what follows the declaration of an encoding that expat does not know, such as GB2312."""
    try:
        return ElementTree.fromstring(content.decode(encoding))
    except (LookupError, UnicodeDecodeError, ElementTree.ParseError) as error:
        raise ValueError(f"{path}: not XML in the encoding {encoding} that it declares ({error})") from error


def describe(tree: ElementTree.Element, path: Path) -> Description:
    """Read the size of an image and its objects.

    Args:
        tree: of the XML.
        path: of the XML, for messages.

    Raises:
        ValueError: a part is missing, or no number.
    """
    height, width = (_number(_child(tree, f"size/{s}", path), int, path) for s in ("height", "width"))
    if min(height, width) <= 0:
        raise ValueError(f"{path}: its size is {width}x{height}; both sides must be positive")
    objects = list(tree.iter("object"))
    names = [_child(o, "name", path) for o in objects]
    texts = [[_child(o, f"bndbox/{c}", path) for c in CORNERS] for o in objects]
    return Description(
        # Tools on Windows write back-slashes.
        Path((tree.findtext("filename") or "").strip().replace("\\", "/")).name,
        (height, width),
        names,
        [tuple(_number(text, float, path) for text in corners) for corners in texts],
        [(_flag(o, "difficult", path), _flag(o, "truncated", path), _crowd(o, path)) for o in objects],
        sum("." in text for corners in texts for text in corners),
    )


def names_in(tree: ElementTree.Element, path: Path) -> set[str]:
    """Collect the class names of an XML."""
    return {_child(element, "name", path) for element in tree.iter("object")}


def _child(element: ElementTree.Element, tag: str, path: Path) -> str:
    text = element.findtext(tag)
    if text is None or not text.strip():
        raise ValueError(f"{path}: <{element.tag}> has no <{tag}>, or an empty one")
    return text.strip()


def _flag(element: ElementTree.Element, tag: str, path: Path) -> bool:
    """Read a flag, which is set by "true" or any number but 0, such as a share that is truncated.

    It is not set where the tag is missing, "false", empty (as of pylabel 0.1.55) or "Unspecified", VOC's word for the
    unknown.
    """
    text = (element.findtext(tag) or "").strip()
    if text.lower() in ("", "unspecified", "false", "true"):
        return text.lower() == "true"
    try:
        return _number(text, float, path) != 0
    except ValueError as error:
        raise ValueError(f"{error}, in <{tag}>") from None


def _crowd(element: ElementTree.Element, path: Path) -> bool:
    """Read whether an object is a crowd, which VOC has no tag for: `iscrowd`, or datumaro's attribute `is_crowd`."""
    attributes = element.iterfind("attributes/attribute")
    marked = any(a.findtext("name") == "is_crowd" and a.findtext("value", "").lower() == "true" for a in attributes)
    return marked or _flag(element, "iscrowd", path)


def _number(text: str, kind: Callable[[float], Number], path: Path) -> Number:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or (kind is int and not value.is_integer()):
        raise ValueError(f"{path}: {text!r} stands where {'a whole' if kind is int else 'a'} number should")
    return kind(value)

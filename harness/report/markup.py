"""Elements of HTML and SVG. Values from files are data: whatever is not `Markup` is escaped."""

import html
import json
import math
import re
from collections.abc import Iterable
from typing import Any

_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")  # XML has no way to write these
_VOID = {"br", "col", "hr", "input", "link", "meta"}


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def text(value: object) -> Markup:
    """A value as text, or as it is where it is markup."""
    return value if isinstance(value, Markup) else Markup(html.escape(_UNPRINTABLE.sub("\ufffd", str(value))))


def el(tag: str, *children: Any, **attributes: Any) -> Markup:
    """An element. Children may be nested lists; None is nothing. `class_` is class, `data_k` is data-k; attributes that
    are None or False are left out."""
    there = ((name, value) for name, value in attributes.items() if value is not None and value is not False)
    written = "".join(f" {_name(name)}{_value(value)}" for name, value in there)
    if tag in _VOID:
        return Markup(f"<{tag}{written}>")
    return Markup(f"<{tag}{written}>{join(children)}</{tag}>")


def join(children: Iterable[Any]) -> Markup:
    """Children one after the other."""
    return Markup(
        "".join(
            join(child) if isinstance(child, list | tuple) else text(child) for child in children if child is not None
        )
    )


def data(value: Any) -> Markup:
    """JSON that may stand in a script element: nothing in it ends the element, or begins a comment."""
    return Markup(json.dumps(_finite(value), separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c"))


def _finite(value: Any) -> Any:
    """JSON has neither infinity nor NaN: they are null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


def _name(name: str) -> str:
    return name.rstrip("_").replace("_", "-")


def _value(value: Any) -> str:
    if value is True:
        return ""
    return f'="{f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else text(value)}"'

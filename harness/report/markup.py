"""Elements of HTML and SVG. Everything that is not `Markup` is escaped, so values from files are never markup."""

import html
import json
import math
import re
from collections.abc import Iterable
from typing import Any

_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")  # XML cannot express these
_VOID = {"br", "col", "hr", "input", "link", "meta"}


class Markup(str):
    """Text that is markup, and is not escaped again."""

    __slots__ = ()


def text(value: object) -> Markup:
    """A value as escaped text. Markup is returned unchanged."""
    return value if isinstance(value, Markup) else Markup(html.escape(_UNPRINTABLE.sub("\ufffd", str(value))))


def el(tag: str, *children: Any, **attributes: Any) -> Markup:
    """An element. Children may be nested lists; None is left out. `class_` becomes class, `data_k` becomes data-k.
    Attributes that are None or False are left out; True is an attribute without a value."""
    present = ((name, value) for name, value in attributes.items() if value is not None and value is not False)
    written = "".join(f" {_name(name)}{_value(value)}" for name, value in present)
    if tag in _VOID:
        return Markup(f"<{tag}{written}>")
    return Markup(f"<{tag}{written}>{join(children)}</{tag}>")


def join(children: Iterable[Any]) -> Markup:
    """The children, one after the other."""
    return Markup(
        "".join(
            join(child) if isinstance(child, list | tuple) else text(child) for child in children if child is not None
        )
    )


def data(value: Any) -> Markup:
    """JSON for a script element. It contains no `<`, so nothing in it can end the element or begin a comment."""
    return Markup(json.dumps(_finite(value), separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c"))


def _finite(value: Any) -> Any:
    """The value with null for infinity and NaN, which JSON does not have."""
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

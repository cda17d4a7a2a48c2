"""Writes the table of the rooms in docs/architecture.md, read from the source: what each says it holds, and which rooms
it imports. The floors are those that tests/test_house.py checks.

    .venv/bin/python benchmarks/describe_rooms.py
"""

import ast
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests")]

import test_house  # noqa: E402

PAGE = ROOT / "docs/architecture.md"
_BEGIN, _END = "<!-- written by benchmarks/describe_rooms.py -->\n", "<!-- end -->\n"
_HIDDEN = {"harness", "harness.__main__"}  # the version, and `python -m harness`


def main() -> int:
    PAGE.write_text(page())
    return 0


def page() -> str:
    """What the page should say."""
    before, rest = PAGE.read_text().split(_BEGIN)
    _, after = rest.split(_END)
    return f"{before}{_BEGIN}\n{table()}\n\n{_END}{after}"


def table() -> str:
    """A row for each room, top floor first."""
    imported = imports()
    rooms = sorted(set(test_house.FLOOR) - _HIDDEN, key=lambda room: (-test_house.FLOOR[room], room))
    rows = [
        f"| {test_house.FLOOR[room]} | {_place(room)} | {holds(room)} | {_names(imported[room])} |" for room in rooms
    ]
    return "\n".join(["| floor | room | what it holds | imports |", "|--:|---|---|---|", *rows])


def holds(room: str) -> str:
    """The first paragraph of the room's docstring."""
    text = ast.get_docstring(ast.parse(_source(room).read_text())) or ""
    return " ".join(text.partition("\n\n")[0].split())


def _source(room: str) -> Path:
    place = ROOT / room.replace(".", "/")
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def _place(room: str) -> str:
    name = _source(room).relative_to(ROOT)
    return f"`{name.parent}/`" if name.name == "__init__.py" else f"`{name}`"


def imports() -> dict[str, set[str]]:
    """The rooms that each room imports from, itself left out."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in test_house.MODULES:
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        room = test_house.room_of(module)
        others = (one for one in test_house.imports_of(path) if one.split(".")[0] in {"harness", "transports"})
        found[room] |= {test_house.room_of(one) for one in others} - {room}
    return found


def _names(rooms: set[str]) -> str:
    order = sorted(rooms - _HIDDEN, key=lambda room: (-test_house.FLOOR[room], room))
    return ", ".join(room.removeprefix("harness.") for room in order) or "-"


if __name__ == "__main__":
    sys.exit(main())

"""Writes the table of factors into docs/experiments.md, and those of columns into docs/results.md."""

import re
from pathlib import Path

from harness import factors, results

DOCS = Path(__file__).parent.parent / "docs"
HEAD = "| column | type | unit | meaning |\n|---|---|---|---|\n"
TABLES = [
    ("experiments.md", "| factor |", factors.table()),
    ("results.md", HEAD + "| `schema`", results.dictionary()),
    (
        "results.md",
        HEAD + "| `trial` | int |  | number of the trial, as in trials.csv: ",
        results.dictionary(results.Slice),
    ),
    (
        "results.md",
        HEAD + "| `trial` | int |  | number of the trial, as in trials.csv |",
        results.dictionary(results.Request),
    ),
]


def main() -> None:
    for name, beginning, table in TABLES:
        page = DOCS / name
        rows = rf"^{re.escape(beginning)}.*\n(?:\|.*\n)+"
        text, found = re.subn(rows, lambda _, table=table: f"{table}\n", page.read_text(), count=1, flags=re.MULTILINE)
        assert found, f"{page}: no table that begins with {beginning}"
        page.write_text(text)


if __name__ == "__main__":
    main()

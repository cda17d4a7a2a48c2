"""`harness new-transport`: writes an installable package with a working transport, for its author to change."""

import argparse
import json
import keyword
import os
import re
from collections.abc import Sequence
from importlib.resources import files
from string import Template

from harness import console, registry

_FILES = {
    "pyproject.toml": "pyproject.toml.txt",
    "README.md": "README.md.txt",
    "harness_{module}.py": "{kind}.py.txt",
    "tests/test_{module}.py": "test.py.txt",
}
_STUDY = "study.yaml"  # in the package
_NEAREST = {"data": ["unix", "posix_shm"], "command": ["unix", "posix_mq"]}  # what the new one is compared with


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="harness new-transport",
        description="Write a package with a working transport, its tests on the conformance kit, a study of it, and a "
        "README.",
        epilog="Then: pip install -e DIR; harness check NAME; pytest DIR; harness run DIR/study.yaml. The tutorial: "
        "`harness docs writing-a-transport`.",
    )
    parser.add_argument("name", metavar="NAME", help="letters, digits, '_' and '-'; not the name of an installed one")
    parser.add_argument("directory", metavar="DIR", help="a new or empty directory")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--data", dest="kind", action="store_const", const="data", default="data", help="(default)")
    kind.add_argument("--command", dest="kind", action="store_const", const="command")
    return parser


def main(argv: Sequence[str]) -> int:
    """Write the package. Returns the exit code."""
    args = arguments().parse_args(argv)
    return console.main("new-transport", lambda: _write(args.name, args.kind, args.directory))


def _write(name: str, kind: str, directory: str) -> None:
    module = name.replace("-", "_").lower()
    class_name = "".join(part.capitalize() for part in re.split(r"[-_]", name))
    _check(name, kind, module, class_name)
    if os.path.exists(directory) and (not os.path.isdir(directory) or os.listdir(directory)):
        raise ValueError(f"{directory}: exists and is not empty; name a new directory")
    values = {"name": name, "Name": class_name, "module": module, "kind": kind, "Kind": kind.capitalize()}
    for target, template in _FILES.items():
        path = f"{directory}/{target.format(**values)}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        text = _template(template.format(**values))
        with open(path, "x", encoding="utf-8") as file:
            # $NameEnd is the class name, followed by a word.
            file.write(Template(re.sub(r"\$(Name|Kind|module)", r"${\1}", text)).substitute(values))
        print(path)
    path = f"{directory}/{_STUDY}"
    baseline, *others = _NEAREST[kind]
    with open(path, "x", encoding="utf-8") as file:
        file.write(study(_STUDY, kind, [baseline, name, *others]))
    print(path)


def study(path: str, kind: str, names: list[str]) -> str:
    """The text of an experiment file that compares transports with the first of them; `path` is where it will be.

    kind: data or command. names: two or more, each as in NAME:opt=val.
    """
    baseline, first = (json.dumps(name) for name in names[:2])
    last = names[-1]
    title = f"Which of {', '.join(names[:-1])} and {last} serves files the fastest, and at which size?"
    return Template(_template("study.yaml.txt")).substitute(
        title=title,
        file=path,
        question=json.dumps(title),
        kind=kind,
        names=", ".join(map(json.dumps, names)),
        baseline=baseline,
        first=first,
        claim=json.dumps(f"{names[1]} serves large files faster than {names[0]}"),
    )


def _check(name: str, kind: str, module: str, class_name: str) -> None:
    """Raise ValueError where a transport of this name would not work."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name) or keyword.iskeyword(module):
        raise ValueError(f"{name!r} cannot be a transport's name: a letter, then letters, digits, '_' and '-'")
    installed = registry.installed()
    known = installed.data if kind == "data" else installed.command
    if name in known:
        origin = installed.origins[known[name]]
        raise ValueError(f"{name!r}: {origin} has a {kind} transport of that name already; take another name")
    imports, _, _ = _template(f"{kind}.py.txt").partition("@dataclass")
    if re.search(rf"^(from|import|   ) .*\b{class_name}\b", imports, re.MULTILINE):
        raise ValueError(f"{name!r}: its class would be {class_name}, which the contract has; take another name")


def _template(name: str) -> str:
    return (files("harness") / "templates" / name).read_text(encoding="utf-8")

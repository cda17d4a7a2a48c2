"""The studies and pages that come with the package: where they are, and which one a name means.

In a checkout they are its own; else the installation has put them below sys.prefix, in `share/doc/transport-harness`.
"""

import os
import sysconfig
from functools import cache

from harness.suggest import unknown

_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_INSTALLED = "share/doc/transport-harness"
_YAML = (".yaml", ".yml")


@cache
def root() -> str:
    """The directory that has `experiments` and `docs`. Raises FileNotFoundError where the installation has none."""
    for directory in (_HERE, os.path.join(sysconfig.get_path("data"), _INSTALLED)):
        if os.path.exists(f"{directory}/experiments/quick.yaml"):
            return directory
    raise FileNotFoundError(f"no studies or pages came with this installation: {directory} is not there")


def studies() -> dict[str, str]:
    """The files of the studies that come along, by name; none where the installation has no pages."""
    try:
        directory = f"{root()}/experiments"
    except FileNotFoundError:
        return {}
    found = (os.path.splitext(entry) for entry in sorted(os.listdir(directory)))
    return {name: f"{directory}/{name}{ending}" for name, ending in found if ending in _YAML}


def study(text: str) -> str:
    """The experiment file that the user means: a path, or the name of a study that comes along. Raises ValueError where
    it is neither."""
    if os.path.isfile(text) or os.sep in text or text.endswith(_YAML):
        return text
    if text in (known := studies()):
        return known[text]
    raise ValueError(unknown("file or study", text, known))


def pages() -> dict[str, str]:
    """The files of all pages, by name: `ipc` is docs/ipc.md, `decisions/README` one in docs/decisions; `README` and a
    few more lie beside docs."""
    found = {}
    for directory, _, files in os.walk(f"{root()}/docs"):
        for file in files:
            name, ending = os.path.splitext(os.path.relpath(f"{directory}/{file}", f"{root()}/docs"))
            if ending == ".md":
                found[name] = f"{directory}/{file}"
    beside = {name: f"{root()}/{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING", "SECURITY")}
    return dict(sorted(found.items())) | {name: path for name, path in beside.items() if os.path.exists(path)}


def page(text: str) -> str:
    """The file of the page that the user means: `ipc`, `docs/ipc.md`, `decisions/0016`, `0016`. Raises
    ValueError."""
    known = pages()
    name = text.removeprefix("docs/").removesuffix(".md")
    if name in known:
        return known[name]
    begun = [path for one, path in known.items() if one.startswith((f"{name}-", f"decisions/{name}-"))]
    if len(begun) == 1:
        return begun[0]
    raise ValueError(unknown("page", text, [one for one in known if "/" not in one]))

"""The docs site: what mkdocs does beside rendering docs/ (mkdocs.yml names this file as its hook).

Pages that lie elsewhere in the repository (README.md, CONTRIBUTING.md, ...) become pages of the site. Links are written
as the repository needs them, relative to the file that they stand in; here each is rewritten to the place of its
target in the site. A code span that names a page, such as `docs/statistics.md`, becomes a link to it. A link to a
Python file leads to a page that shows it, a link to any other file of the repository to a copy of that file.
"""

import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, InclusionLevel

ROOT = Path(__file__).parent.parent
ELSEWHERE = {  # file in the repository: page of the site
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "LICENSE": "license.md",
    "SECURITY.md": "security.md",
    "plugins/harness-grpc/README.md": "harness-grpc.md",
    "plugins/harness-iceoryx2/README.md": "harness-iceoryx2.md",
    "plugins/harness-io-uring/README.md": "harness-io-uring.md",
    "plugins/harness-nng/README.md": "harness-nng.md",
    "plugins/harness-redis/README.md": "harness-redis.md",
    "plugins/harness-zenoh/README.md": "harness-zenoh.md",
    "plugins/harness-zmq/README.md": "harness-zmq.md",
    "results/README.md": "kept-results.md",
}
_LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s#]+)(#[^)]*)?\)")
_CODE = re.compile(r"(?<![\[`])`([\w./-]+\.md)`(?![\]`])")
_FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that lie outside docs/, and the files that any page links to."""
    for source, page in ELSEWHERE.items():
        text = (ROOT / source).read_text()
        files.append(File.generated(config, page, content=_placed(text, source, page)))
    for file in list(files.documentation_pages()):
        source = source_of(file.src_uri)
        for target in links(source):
            place = _page_of(target)
            if not files.get_file_from_path(place) and (ROOT / target).exists():  # else mkdocs reports the link
                given = (ROOT / target).read_text() if place != target else (ROOT / target).read_bytes()
                content = f"# {target}\n\n~~~~~python\n{given}~~~~~\n" if isinstance(given, str) else given
                files.append(File.generated(config, place, content=content, inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrite the links of a page of docs/; those from elsewhere were rewritten when they were added."""
    place = page.file.src_uri
    return markdown if page.file.generated_by else _placed(markdown, f"docs/{place}", place)


def links(source: str) -> list[str]:
    """The files of the repository that a page links to, as paths from its root."""
    found = _LINK.finditer((ROOT / source).read_text())
    return [_target(source, one[2]) for one in found if not re.match(r"\w+:", one[2])]


def source_of(page: str) -> str:
    """The file in the repository that a page of the site comes from."""
    return {place: source for source, place in ELSEWHERE.items()}.get(page, f"docs/{page}")


def _target(source: str, link: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))


def _page_of(target: str) -> str:
    """Where a file of the repository is in the site."""
    return ELSEWHERE.get(target, re.sub(r"\.py$", ".md", target.removeprefix("docs/")))


def _placed(text: str, source: str, place: str) -> str:
    def address(target: str) -> str:
        return os.path.relpath(_page_of(target), posixpath.dirname(place) or ".")

    def link(found: re.Match[str]) -> str:
        if re.match(r"\w+:", found[2]):
            return found[0]
        return f"{found[1]}{address(_target(source, found[2]))}{found[3] or ''})"

    def code(found: re.Match[str]) -> str:
        known = (ROOT / found[1]).exists() and (found[1].startswith("docs/") or found[1] in ELSEWHERE)
        return f"[`{found[1]}`]({address(found[1])})" if known else found[0]

    parts = _FENCED.split(text)
    parts[::2] = [_CODE.sub(code, _LINK.sub(link, part)) for part in parts[::2]]
    return "".join(parts)

"""What tests of the pages share."""

import re

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s#]+)(?:#[^)]*)?\)")
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def links(page):
    """The files that a Markdown page links to, links to other sites left out."""
    text = _FENCED.sub("", page.read_text())
    return [(page.parent / one).resolve() for one in _LINK.findall(text) if not re.match(r"\w+:", one)]

"""The README as a package page shows it: links into the repository become absolute; plain text where it has no address.

setup.py uses it when a wheel or an sdist is made. QUANTCLI_URL is the repository's address (the workflow sets it).
"""

from __future__ import annotations

import re

_LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<place>(?!https?://|#)[^)]+)\)")


def absolute(text: str, address: str | None, version: str) -> str:
    """``text`` of Markdown without relative links. ``address``: of the repository; ``version``: a tag of it."""

    def link(found: re.Match[str]) -> str:
        if address is None:
            return "" if found["picture"] else found["text"]
        kind = "raw" if found["picture"] else "blob"
        return f"{found['picture']}[{found['text']}]({address.rstrip('/')}/{kind}/{version}/{found['place']})"

    return _LINK.sub(link, text)

"""A hook of MkDocs: links from a page to a file of the repository lead to that file where the repository is hosted."""

import posixpath
import re
from typing import Any

LINK = re.compile(r"(?<=\]\()(\.\.?/[^)\s#]*)")


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Replace each link out of docs/, which the site does not hold."""
    here = posixpath.dirname(f"docs/{page.file.src_uri}")

    def resolved(link: re.Match) -> str:
        target = posixpath.normpath(posixpath.join(here, link[1]))
        return link[1] if target.startswith("docs/") else f"{config['repo_url']}/blob/main/{target}"

    return LINK.sub(resolved, markdown)

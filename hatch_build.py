"""What the build adds to the package's metadata: the README, with links that a package index can follow.

    REPOSITORY=https://github.com/OWNER/NAME python -m build

Without REPOSITORY links stay relative, as a clone and `pip install` from it want them.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(?P<picture>!?)\[(?P<words>[^\]]*)\]\((?P<path>[^)#:\s]+)(?P<part>#[^)\s]*)?\)")
"""A link or picture of Markdown whose target is a path: no address (they hold a colon), no part of the same page."""


def absolute(text: str, repository: str, tag: str) -> str:
    """The text with its links to files of the project at REPOSITORY/blob/TAG and its pictures at REPOSITORY/raw/TAG."""

    def link(match: re.Match[str]) -> str:
        kind = "raw" if match["picture"] else "blob"
        return f"{match['picture']}[{match['words']}]({repository.rstrip('/')}/{kind}/{tag}/{match['path']}{match['part'] or ''})"

    return LINK.sub(link, text)


class CustomMetadataHook(MetadataHookInterface):
    """Hatchling's name for the hook of a project."""

    def update(self, metadata: dict[str, Any]) -> None:
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        if repository := os.environ.get("REPOSITORY"):
            if not repository.startswith("https://"):
                raise ValueError(
                    f"REPOSITORY={repository}: give the project's https address, such as https://github.com/OWNER/NAME"
                )
            text = absolute(text, repository, f"v{metadata['version']}")
            metadata["urls"] = {"Repository": repository}
        metadata["readme"] = {"content-type": "text/markdown", "text": text}

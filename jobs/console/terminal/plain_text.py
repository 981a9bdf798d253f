"""Text that only shows: no command to a terminal in it, and no secret of a URI.

    names, texts, messages of others -> [plain_text] -> console

A file's name or a corpus's text may hold escape sequences that move the cursor, change the window's
title or answer for the user, and characters that turn the order of what follows. They are shown as
Python writes them. This module knows nothing of where text comes from or goes.
"""

import re

from fastformers.cluster.storage.options import hide_credentials

# C0 but for tab and line feed, DEL, C1, line and paragraph separators, marks of direction, and
# halves of characters, which stand for bytes that are no UTF-8.
_COMMANDS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def plain(text: str) -> str:
    """The text with every such character shown as `\\x1b` or `\\u202e`, and credentials hidden."""
    return _COMMANDS.sub(_show, hide_credentials(text))


def _show(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"

"""What must not get into a file that others read."""

from __future__ import annotations

import os
import re

_SECRET_NAME = re.compile(r"KEY|SECRET|TOKEN|PASSW|CREDENTIAL", re.IGNORECASE)
_SHORTEST = 8  # characters; what is shorter may as well be a word
_USER_OF_URI = re.compile(r"(?<=://)[^\s'\"]+@")
_GIVEN = re.compile(
    r"(?i)(?<![a-z])(authorization|bearer|token|api[_-]?key|passw(?:or)?d|secret)\b"
    r"(['\"]?\s*[:=]\s*['\"]?(?:(?:bearer|basic)\s+)?|\s+)([A-Za-z0-9+/_.~-]{12,})"
)


class Redaction:
    """Takes secrets out of texts; those of the environment as it is when this is made."""

    def __init__(self) -> None:
        self._values = [
            value
            for name, value in os.environ.items()
            if len(value) >= _SHORTEST and _SECRET_NAME.search(name)
        ]

    def __call__(self, text: str) -> str:
        """The text without values of variables that hold secrets, users of URIs, keys and tokens.

        What looks like a secret and is none is left out too.
        """
        for value in self._values:
            text = text.replace(value, "…")
        return _GIVEN.sub(r"\1\2…", _USER_OF_URI.sub("…@", text))

"""Whether W&B is used, and whether its server can be: nobody is ever asked for a key."""

from __future__ import annotations

import contextlib
import netrc
import os
import urllib.parse
from pathlib import Path
from typing import Literal

Mode = Literal["online", "offline", "off"]

_SERVER = "https://api.wandb.ai"


def default_mode() -> Mode:
    """`$WANDB_MODE` where it is set, else online where a key is configured, else offline."""
    asked = os.environ.get("WANDB_MODE", "")
    if asked in ("disabled", "off"):
        return "off"
    if asked in ("online", "offline"):
        return "online" if asked == "online" else "offline"
    return "online" if has_key() else "offline"


def has_key() -> bool:
    """Whether a key is configured. It is neither read into our memory for long, nor ever shown."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urllib.parse.urlsplit(os.environ.get("WANDB_BASE_URL", _SERVER)).hostname or ""
    with contextlib.suppress(OSError, netrc.NetrcParseError):  # an unreadable file has no key
        file = os.environ.get("NETRC") or str(Path("~/.netrc").expanduser())
        return netrc.netrc(file).authenticators(host) is not None
    return False


def without_key(text: str) -> str:
    """A text on one line, without the key if it should be in there."""
    key = os.environ.get("WANDB_API_KEY")
    line = " ".join(text.split())
    return (line.replace(key, "…") if key else line)[:300]

"""Addresses without the passwords in them, for everything that is printed, logged or stored."""

from __future__ import annotations

import re
from urllib.parse import urlsplit, urlunsplit


def without_secrets(uri: str) -> str:
    """A URI without user, password and, unless it names a local file, query.

    Example:
        >>> without_secrets("https://me:secret@host:5000/path?token=1")
        'https://host:5000/path'
    """
    parts = urlsplit(uri)
    if not parts.netloc and "?" not in uri:
        return uri
    netloc = parts.netloc.rpartition("@")[2]
    rebuilt = urlunsplit((parts.scheme, netloc, parts.path, "", ""))
    return rebuilt if netloc or not re.match(r"^\w[\w+]*:///", uri) else f"{parts.scheme}://{parts.path}"


def hide_secrets(text: str) -> str:
    """A text on one line with the secrets of the URIs in it cut out."""
    return re.sub(r"\w[\w+.-]*://\S+", lambda match: without_secrets(match[0]), " ".join(text.split()))

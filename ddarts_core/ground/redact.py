"""Addresses without the passwords in them, for everything that is printed, logged or stored.

SQLAlchemy takes passwords as they are, with `/`, `#`, `?` and spaces in them, so no parser of URLs can tell where one
ends. Here it ends at the last `@`: rather too much is cut than too little.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path
from urllib.parse import quote, unquote

CUT = "***"

SHORTEST = 4
"""Characters of a secret that is cut out wherever it occurs: a shorter one is part of many a word."""

_URI = re.compile(r"(?P<scheme>(?:[\w+.-]+:)?//)(?:(?P<user>[^:/]*)(?::(?P<password>.*))?@)?(?P<place>.*)", re.DOTALL)
_CONTAINERS = ("abfs://", "abfss://")
"""What stands before the @ in these, if it has no colon, is a place in the store."""

_IN_TEXT = re.compile(
    r"""[\w+.-]+://
    (?: [^\s:/]* : (?!\s|\d+\b) .* @ )?  # spaces that follow a user's name and no port are the password's
    \S*""",
    re.DOTALL | re.VERBOSE,
)
_PAIR = re.compile(
    r"""(?P<name>(?:password|passwd|pwd|token|secret|credentials?|signature|api_?key|access_?key)=)
    (?P<value>'[^']*'|"[^"]*"|[^\s&;,'"]+)""",
    re.IGNORECASE | re.VERBOSE,
)


def has_password(uri: str) -> bool:
    """Whether anything could be a password in a URI, its query apart."""
    match = _URI.fullmatch(uri)
    return match is not None and match["password"] is not None


def without_secrets(uri: str) -> str:
    """A URI without user, password, query and fragment; anything else as it is.

    Example:
        >>> without_secrets("https://me:se/cret@host:5000/path?token=1")
        'https://host:5000/path'
    """
    match = _URI.fullmatch(uri)
    if match is None:
        return uri
    place = match["place"]
    if match["scheme"] in _CONTAINERS and match["user"] and match["password"] is None:
        place = f"{match['user']}@{place}"
    # The name of a local file may have a #.
    return match["scheme"] + re.split(r"\?" if place.startswith("/") else "[?#]", place, maxsplit=1)[0]


def hide_secrets(text: str, *known: str) -> str:
    """A text with the secrets of the URIs in it cut out.

    Args:
        text: in which a password with spaces may be taken for one that ends before them.
        known: texts that each end with a URI, or are none. Their secrets are cut out wherever they occur, and so are
            those of variables of the environment that are URIs.
    """
    environment = [value for value in os.environ.values() if _URI.fullmatch(value)]
    secrets = set[str]().union(*(_secrets(uri) for uri in (*known, *environment)))
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, CUT)
    text = _IN_TEXT.sub(lambda match: _in_text(match[0]), text)
    return _PAIR.sub(rf"\g<name>{CUT}", text)


def _in_text(uri: str) -> str:
    """A URI without secrets, but with the page of a server's UI that a link names after `#/`."""
    cut = without_secrets(uri)
    before, mark, page = uri.rpartition("@")[2].partition("#/")
    return cut + mark + page if mark and cut.endswith(before) else cut


def _secrets(text: str) -> set[str]:
    """What to look for: the secrets of the URI that a text ends with, in the forms that messages give them."""
    found = [pair["value"] for pair in _PAIR.finditer(text)]
    uri = _URI.search(text)
    if uri is not None:
        token = uri["user"] if uri["scheme"] in ("http://", "https://") else None
        secret = uri["password"] or token or ""
        found += [secret, secret.partition("@")[0]]  # SQLAlchemy's own end
    forms = (str, unquote, lambda secret: quote(secret, safe=""), lambda secret: repr(secret)[1:-1], one_line)
    return {form(secret) for secret in found for form in forms if len(form(secret)) >= SHORTEST}


def command_line() -> str:
    """What this process was started with, without the secrets of URIs and without the place of the program."""
    program, *words = sys.argv
    own = Path(program).name == "ddarts" or program.endswith("ddarts_cli/__main__.py")
    return shlex.join(["ddarts" if own else program, *(hide_secrets(word, word) for word in words)])


def one_line(text: str) -> str:
    """A text with all white space as single spaces."""
    return " ".join(text.split())

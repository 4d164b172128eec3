"""Removes passwords from addresses, in everything that is printed, logged or stored.

SQLAlchemy takes passwords as they are, with `/`, `#`, `?` and spaces in them. So no parser of URLs can tell where a
password ends. Here it ends at the last `@`, so that rather too much is cut than too little.
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
"""The fewest characters of a secret that is cut out wherever it occurs; a shorter secret may be a part of many
words."""

_URI = re.compile(r"(?P<scheme>(?:[\w+.-]+:)?//)(?:(?P<user>[^:/]*)(?::(?P<password>.*))?@)?(?P<place>.*)", re.DOTALL)
_CONTAINERS = ("abfs://", "abfss://")
"""In URIs that begin so, the text before the @ is a place in the store, unless it has a colon."""

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
    """Whether any part of a URI could be a password; its query is not looked at."""
    match = _URI.fullmatch(uri)
    return match is not None and match["password"] is not None


def without_secrets(uri: str) -> str:
    """A URI without user, password, query and fragment; any other text stays as it is.

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
        text: the text. A password with spaces in it may be taken for one that ends before the spaces.
        known: texts that each end with a URI, if they have one. The secrets of these URIs are cut out wherever they
            occur, and so are those of environment variables that are URIs.
    """
    environment = [value for value in os.environ.values() if _URI.fullmatch(value)]
    secrets = set[str]().union(*(_secrets(uri) for uri in (*known, *environment)))
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, CUT)
    text = _IN_TEXT.sub(lambda match: _in_text(match[0]), text)
    return _PAIR.sub(rf"\g<name>{CUT}", text)


def _in_text(uri: str) -> str:
    """A URI without secrets. The page of a server's UI, which a link names after `#/`, stays."""
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
    """The command line that started this process, without the secrets of URIs and without the program's folder."""
    program, *words = sys.argv
    own = Path(program).name == "ddarts" or program.endswith("ddarts_cli/__main__.py")
    return shlex.join(["ddarts" if own else program, *(hide_secrets(word, word) for word in words)])


def one_line(text: str) -> str:
    """A text with all white space as single spaces."""
    return " ".join(text.split())

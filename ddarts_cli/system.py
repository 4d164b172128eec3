"""What the system lacks: room on a disk or rights, said as one sentence, and characters of its output."""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
import unicodedata

_ROOM = "make room there, or write elsewhere"
_RIGHTS = "choose a place where you may read and write, or ask for the right to"
_PATH = "choose another path"

#: What to do, by what is wrong; any other error of the system is one of the program.
_ADVICE = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: _ROOM,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EROFS: _RIGHTS,
    errno.EISDIR: _PATH,
    errno.ENOTDIR: _PATH,
    errno.EEXIST: "a file is where a folder is needed; choose another path",
    errno.ENAMETOOLONG: _PATH,
    errno.ELOOP: _PATH,
    errno.EIO: "look after the disk",
}

#: What libraries say in errors of their own: what is wrong, by a part of their text.
_TEXTS = {
    **{os.strerror(code): code for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)},
    "database or disk is full": errno.ENOSPC,
    "attempt to write a readonly database": errno.EROFS,
}


def _is_nowhere() -> bool:
    """Whether the folder that this process works in was deleted."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def refusal(error: Exception) -> str | None:
    """What the system refused, where, and what to do about it; None if the error is a fault of the program."""
    code = error.errno if isinstance(error, OSError) else None
    if code is None:
        code = next((code for text, code in _TEXTS.items() if text in str(error)), None)
    if code == errno.ENOENT and _is_nowhere():
        return "the folder that this was started in is gone: change into one that exists, and start again"
    if code not in _ADVICE:
        return None
    place = getattr(error, "filename", None)
    return f"cannot write or read{f' {os.fsdecode(place)}' if place else ''}: {os.strerror(code)}; {_ADVICE[code]}"


#: What is printed for a character that the encoding of standard output lacks; of others, their letters without marks.
PLAIN = {
    "–": "-",
    "−": "-",
    "×": "x",
    "±": "+-",
    "→": "->",
    "◇": "<>",
    "†": "+",
    "α": "alpha",
    "β": "beta",
    "σ": "sigma",
}


def print_plainly() -> None:
    """Have standard output print stand-ins for characters that its encoding lacks, instead of raising an error."""
    codecs.register_error("plain", _plain)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    ascii_of = (unicodedata.normalize("NFKD", char).encode("ascii", "ignore").decode() for char in lacking)
    return "".join(PLAIN.get(char) or plain or "?" for char, plain in zip(lacking, ascii_of, strict=True)), error.end

"""SQLite databases as MLflow names them: `sqlite:///FILE`, in which SQLAlchemy takes ? and % for its own."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

PREFIX = "sqlite:///"


def uri_of(file: Path) -> str:
    """The URI of a file.

    Example:
        >>> uri_of(Path("/runs/what?/50%/mlflow.db"))
        'sqlite:////runs/what%3F/50%25/mlflow.db'
    """
    return PREFIX + str(file).replace("%", "%25").replace("?", "%3F")


def file_of(uri: str) -> Path | None:
    """The file of a URI, absolute; None if it is that of another kind of store.

    Example:
        >>> file_of("sqlite:////runs/50%25/mlflow.db?timeout=10")
        PosixPath('/runs/50%/mlflow.db')
    """
    return Path(unquote(uri.removeprefix(PREFIX).partition("?")[0])).absolute() if uri.startswith(PREFIX) else None

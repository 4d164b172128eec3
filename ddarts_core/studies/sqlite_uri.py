"""URIs of SQLite databases as MLflow writes them: `sqlite:///FILE`, in which ? and % have a meaning for SQLAlchemy."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

PREFIX = "sqlite:///"


def uri_of(file: Path) -> str:
    """Return the URI of a database file.

    Example:
        >>> uri_of(Path("/runs/what?/50%/mlflow.db"))
        'sqlite:////runs/what%3F/50%25/mlflow.db'
    """
    return PREFIX + str(file).replace("%", "%25").replace("?", "%3F")


def file_of(uri: str) -> Path | None:
    """Return the absolute path of the file that a URI names; None if the URI is of another kind of store.

    Example:
        >>> file_of("sqlite:////runs/50%25/mlflow.db?timeout=10")
        PosixPath('/runs/50%/mlflow.db')
    """
    return Path(unquote(uri.removeprefix(PREFIX).partition("?")[0])).absolute() if uri.startswith(PREFIX) else None

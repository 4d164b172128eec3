"""The checkout as others get it: its wheel, in an environment that has what ddarts needs, but not ddarts."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]

OFFLINE = ("--quiet", "--disable-pip-version-check", "--no-index", "--no-deps")


def bare_environment(folder: Path) -> Path:
    """A virtual environment with everything that ddarts needs, without ddarts; its Python."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    # A folder that is named in a .pth file has its own .pth files, an editable install among them, left out.
    dependencies = "\n".join(path for path in sys.path if path.endswith("-packages"))
    for name in ("purelib", "platlib"):
        site = Path(sysconfig.get_path(name, vars={"base": str(folder), "platbase": str(folder)}))
        (site / "dependencies.pth").write_text(dependencies)
    command = [str(python), "-c", "import ray; import ddarts_tuning"]
    imported = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert "No module named 'ddarts_tuning'" in imported.stderr, imported.stderr
    return python


def build_wheel(folder: Path) -> Path:
    """The checkout's wheel, built in a copy without a network."""
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "runs"))
    command = [sys.executable, "-m", "pip", "wheel", *OFFLINE, "--no-build-isolation", "-w", folder, source]
    subprocess.run(command, check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(python: Path, wheel: Path) -> None:
    """Install a wheel in the environment of `python`, without a network."""
    subprocess.run([sys.executable, "-m", "pip", "--python", python, "install", *OFFLINE, wheel], check=True)

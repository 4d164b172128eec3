"""The pictures of README.md that show a study in a browser; `make pictures` makes them of the quickstart's sweep.

`python -m tests.pictures STUDY FOLDER` writes FOLDER/report.png and FOLDER/mlflow.png.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from ddarts_cli.main import run
from tests.browser import CHROMIUM

#: Height of a picture in pixels.
HEIGHT = 860

#: What a browser may take, in ms: a busy machine takes a minute.
PATIENCE = 180_000


def main(study: Path, folder: Path) -> None:
    """Write both pictures."""
    page = study / "report.html"
    assert run(["report", str(study), "--out", str(page)]) == 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        picture(browser, f"{page.absolute().as_uri()}#part0", folder / "report.png", width=1280, wait="Ranking")
        command = [sys.executable, "-m", "ddarts_cli", "ui", str(study)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            link = next(found[0] for line in server.stdout if (found := re.search(r"http://127\.0\.0\.1\S+", line)))
            picture(browser, link, folder / "mlflow.png", width=1680, wait="trial-00000")
        finally:
            server.terminate()
            server.wait(60)
        browser.close()


def picture(browser: Browser, address: str, path: Path, width: int, wait: str) -> None:
    """Write what a page shows in light colours, as a PNG file of 128 colours, which has a third of the bytes.

    Args:
        browser: opens the page.
        address: of the page.
        path: of the PNG file.
        width: of the page, in pixels.
        wait: a text of the page that is there when it is whole.
    """
    page = browser.new_page(viewport={"width": width, "height": HEIGHT}, color_scheme="light")
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    page.get_by_text(wait).first.wait_for()
    for name in ("Hide banner", "Close"):  # MLflow's note on shared views, and its assistant
        if (button := page.get_by_role("button", name=name, exact=True)).count():
            button.first.click()
    page.wait_for_timeout(2_000)  # the table's columns come after its rows
    shown = Image.open(io.BytesIO(page.screenshot(timeout=PATIENCE))).convert("RGB")
    shown.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"wrote {path} ({path.stat().st_size / 1000:.0f} kB)")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

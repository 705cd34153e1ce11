import os
import subprocess
import sys
from pathlib import Path

import pytest

os.environ["OMP_NUM_THREADS"] = "1"  # the models of the tests are too small for a second thread to pay

import torch

torch.set_num_threads(1)

CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture
def attend(tmp_path):
    """The real command line, in a folder of its own: attend("train", "domain=text") -> CompletedProcess."""

    def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [Path(sys.executable).with_name("attend"), *arguments],
            cwd=tmp_path,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=240,
        )

    return command


@pytest.fixture
def opened():
    """A file of HTML in a real browser, on a phone and on a screen: `for page in opened(path): …`.

    It asks for nothing, says nothing on the console, and is as wide as its window.
    """
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="needs the extra browser: pip install -e '.[browser]'"
    )
    if not CHROMIUM.is_file():
        pytest.skip(f"needs {CHROMIUM}: apt-get install chromium")
    with playwright.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"], timeout=120_000)

        def pages(path: Path, **options):
            for width in (375, 1200):
                page, errors = browser.new_page(viewport={"width": width, "height": 800}, **options), []
                page.set_default_timeout(120_000)  # a busy machine
                page.on("console", lambda message, errors=errors: errors.append(message.text))
                page.on("pageerror", lambda error, errors=errors: errors.append(str(error)))
                page.on("request", lambda sent, errors=errors: sent.url.startswith("http") and errors.append(sent.url))
                page.goto(path.as_uri())
                yield page
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                assert not errors

        yield pages
        browser.close()

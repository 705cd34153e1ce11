import os
import subprocess
import sys
import warnings
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryFile

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models of the tests are too small for a second thread to pay

import torch

from experiments.cli import main

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

CHROMIUM = Path("/usr/bin/chromium")


def threads() -> list[str]:
    """The names of the threads of this process."""
    names = []
    for task in Path("/proc/self/task").glob("*/comm"):
        with suppress(OSError):  # it has ended since
            names.append(task.read_text())
    return names


@pytest.fixture
def attend(tmp_path):
    """Run the real command line in a temporary folder: attend("train", "domain=text") -> CompletedProcess."""

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
def forked(tmp_path, attend):
    """As `attend`, but in a fork of this process, for all but what a new process is there to show.

    What this one has loaded, torch above all, is not loaded again: that would take most of the time of a small command.
    It is `attend` itself where this process has threads that do not outlive a fork: those of OpenMP, and those that
    autograd starts for a backward pass on another device than the CPU, such as the meta device of `attend plan`.
    """
    if torch.get_num_threads() > 1 or any(name.startswith("pt_autograd") for name in threads()):
        return attend

    def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        def work() -> None:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
            os.chdir(tmp_path)
            os.environ.update(environment)
            warnings.resetwarnings()
            sys.argv = ["attend", *arguments]
            main()

        with TemporaryFile("w+") as out, TemporaryFile("w+") as err:
            process = get_context("fork").Process(target=work)
            process.start()
            process.join(240)
            process.kill()  # if it has not ended
            process.join()
            assert process.exitcode is not None
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(arguments, process.exitcode, out.read(), err.read())

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

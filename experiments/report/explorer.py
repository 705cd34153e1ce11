"""The attention explorer as one HTML page that needs nothing beside it."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

HERE = Path(__file__).parent
SCRIPTS = ("vendor/d3.min.js", "vendor/plot.umd.min.js", "explorer.js")


def write_explorer(path: Path, data: dict[str, Any]) -> None:
    """Write what experiments.explain found as a page.

    The data lie in it as JSON. Jinja's `tojson` writes <, >, &, ' and all that is not ASCII as \\uXXXX, so that no
    label can end the script.
    """
    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined)
    scripts = [(HERE / name).read_text(encoding="utf-8") for name in SCRIPTS]
    page = environment.get_template("explorer.html").render(data=data, scripts=scripts)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")

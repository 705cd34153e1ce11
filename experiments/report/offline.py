"""Pages that need nothing beside them: a template, its data, and the scripts that draw them, in one file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

HERE = Path(__file__).parent
CHARTS = ("vendor/d3.min.js", "vendor/plot.umd.min.js")


def write(path: Path, name: str, filters: dict[str, Callable[..., str]] | None = None, **values: Any) -> None:
    """Fills NAME.html with `values`, and with d3, Observable Plot and NAME.js as `scripts`.

    Data lie in a page as JSON. Jinja's `tojson` writes <, >, &, ' and all that is not ASCII as \\uXXXX, so that no
    label can end the script.
    """
    jinja = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined)
    jinja.filters |= filters or {}
    scripts = [(HERE / script).read_text(encoding="utf-8") for script in (*CHARTS, f"{name}.js")]
    page = jinja.get_template(f"{name}.html").render(scripts=scripts, **values)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")

"""Pages that need nothing beside them: a template, its data, and the scripts that draw them, in one file."""

import math
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.ticker import EngFormatter

HERE = Path(__file__).parent
SCRIPTS = ("vendor/d3.min.js", "vendor/plot.umd.min.js", "base.js")


def write(path: Path, name: str, script: str, **values: Any) -> None:
    """Fills the template NAME.html with `values`, and with d3, Observable Plot and SCRIPT.js as `scripts`.

    Data lie in a page as JSON. Jinja's `tojson` writes <, >, &, ' and all that is not ASCII as \\uXXXX, so that no
    label can end the script.
    """
    jinja = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined)
    jinja.filters |= {"figure": figure, "short": short}
    scripts = [(HERE / file).read_text(encoding="utf-8") for file in (*SCRIPTS, f"{script}.js")]
    page = jinja.get_template(f"{name}.html").render(scripts=scripts, **values)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def figure(value: float | None, form: str = ".4g") -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:{form}}"


def short(value: float | None, unit: str = "") -> str:
    """12.3 G for 12,300,000,000."""
    return "–" if value is None else EngFormatter(unit, places=1 if value >= 1000 else 0)(value)

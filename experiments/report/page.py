"""Self-contained HTML pages: a template, its data and its scripts in one file."""

import math
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.ticker import EngFormatter

FOLDER = Path(__file__).parent
SCRIPTS = ("vendor/d3.min.js", "vendor/plot.umd.min.js", "base.js")


def write_page(path: Path, name: str, script: str, **values: Any) -> None:
    """Fill the template NAME.html with `values`, and with d3, Observable Plot and SCRIPT.js as `scripts`.

    Data are embedded as JSON. Jinja's `tojson` escapes <, >, &, ' and all non-ASCII as \\uXXXX, so that no label can
    end the script.
    """
    jinja = Environment(loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined)
    jinja.filters |= {"format_number": format_number, "format_si": format_si}
    scripts = [(FOLDER / file).read_text(encoding="utf-8") for file in (*SCRIPTS, f"{script}.js")]
    page = jinja.get_template(f"{name}.html").render(scripts=scripts, **values)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def format_number(value: float | None, form: str = ".4g") -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:{form}}"


def format_si(value: float | None, unit: str = "") -> str:
    """Format with an SI prefix: 12.3 G for 12,300,000,000."""
    return "–" if value is None else EngFormatter(unit, places=1 if value >= 1000 else 0)(value)

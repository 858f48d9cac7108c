"""From data to one HTML file: no request leaves it, and nothing of the store is ever read as markup or code."""

import base64
import hashlib
import json
import math
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from bench import __version__

SCRIPTS = ("format.js", "filters.js", "curves.js", "details.js", "table.js", "page.js")


def build_page(data: dict[str, Any], title: str = "Adversarial robustness of deep equilibrium models") -> str:
    """The page.

    The data is a JSON block that no browser runs, with every sign of markup escaped; scripts put it on the page as text
    alone. The policy in the head lets exactly our own script and style run, by their hashes, and nothing be fetched.

    Args:
        data: of `page_data`.
    """
    script = "\n".join(_part(name) for name in SCRIPTS)
    style = _part("page.css")
    # Autoescape by hand-picked name: only what is ours, or escaped above, passes as it is.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_part("page.html.j2")).render(
        title=title,
        version=__version__,
        policy=f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'",
        script=_trusted(script),
        style=_trusted(style),
        data=_trusted(as_script_data(data)),
        count=len(data["rows"]),
    )


def as_script_data(data: Any) -> str:
    """JSON that cannot end the script element it stands in, whatever its strings hold; NaN and infinities are null."""
    text = json.dumps(_finite(data), ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def _trusted(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)  # noqa: S704 - our own files, and JSON without a single < or &


def _part(name: str) -> str:
    return files("bench.page").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

"""Canonical JSON for hashes, and names as parts of paths."""

import json
import re
from typing import Any

from bench.system.files import safe_name


def canonical(content: Any) -> str:
    """JSON with one spelling: keys sorted, no spaces."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def slug(name: str) -> str:
    """A name as part of a path, at most 80 characters."""
    return safe_name(re.sub(r"[^A-Za-z0-9.+=-]+", "_", name).strip("_")[:80])

"""One HTML file that needs nothing but itself.

What comes from a recording is data, in JSON that no text in it can end; the scripts show it as text
nodes. A content security policy lets the file's own two scripts run, and nothing be loaded.
"""

import base64
import hashlib
import html
import json
from importlib.resources import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Where the parser of HTML, or of JavaScript before 2019, would see the end of something.
_ESCAPES = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def _asset(name: str) -> str:
    return files("memlimits.cli.formats").joinpath("assets", name).read_text("utf-8")


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def build(name: str, title: str, data: "dict[str, Any]") -> bytes:
    """Return a page.

    Parameters
    ----------
    name : str
        Which: that of its body, style and script.
    title : str
    data : dict
        What its script shows.
    """
    style = _asset("page.css") + _asset(f"{name}.css")
    script = _asset("page.js") + _asset(f"{name}.js")
    policy = f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}"
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).translate(_ESCAPES)
    page = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="memlimits">
<title>{html.escape(title)}</title>
<style>{style}</style>
</head>
<body>
{_asset(f"{name}.html")}
<noscript><p>This page draws what it has by its own script, which is switched off.</p></noscript>
<script type="application/json" id="data">{text}</script>
<script>{script}</script>
</body>
</html>
"""
    return page.encode("utf-8", "backslashreplace")

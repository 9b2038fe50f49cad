"""Pages and tables from templates, with every text escaped for the format.

A page is one HTML file that needs no other file; the same values give the same bytes.
"""

import base64
import hashlib
import html
import re
from collections.abc import Callable, Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

_MARKUP = re.compile(
    r"[\\`*\[\]|~$]|(?<!\w)_|_(?!\w)|<(?=[A-Za-z/!?])|^[>+-]|(?<!\S)#|&(?=#?\w+;)", re.ASCII
)
"""Characters that are markup in Markdown; snake_case and `a < b` are plain text."""

_TEX = str.maketrans(
    {
        **{c: f"\\{c}" for c in "&%$#_{}"},
        **{"\\": r"\textbackslash{}", "~": r"\~{}", "^": r"\^{}", "|": r"\textbar{}"},
        **{"<": r"\textless{}", ">": r"\textgreater{}", "±": r"$\pm$", "†": r"$^\dagger$"},
        **{"‡": r"$^\ddagger$", "↑": r"$\uparrow$", "↓": r"$\downarrow$"},
    }
)


def markdown_text(text: str) -> str:
    """Return a text escaped for Markdown."""
    return re.sub(r"^(\d+)([.)])(?=\s)", r"\1\\\2", _MARKUP.sub(r"\\\g<0>", text))


def latex_text(text: str) -> str:
    """Return a text escaped for LaTeX."""
    # After a row's end or a rule, LaTeX would read a star or bracket as an option.
    first = "{}" if text.lstrip().startswith(("[", "*")) else ""
    return first + text.translate(_TEX)


def _environment(escape: Callable[[str], str], begin: str = "{{", end: str = "}}") -> Environment:
    def finalize(value: Any) -> Markup:
        return value if isinstance(value, Markup) else Markup(escape(str(value)))  # noqa: S704

    return Environment(
        loader=PackageLoader(__package__),
        variable_start_string=begin,
        variable_end_string=end,
        autoescape=True,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


_ENVIRONMENTS = {
    ".md": _environment(markdown_text),
    ".tex": _environment(latex_text, "<<", ">>"),
    ".html": _environment(html.escape),
}


_ENVIRONMENTS[".html"].filters["source"] = lambda png: (
    f"data:image/png;base64,{base64.b64encode(png).decode()}"
)


def fill(template: str, **values: object) -> str:
    """Return a template of this package with its values; texts are escaped for its suffix."""
    return _ENVIRONMENTS[Path(template).suffix].get_template(template).render(values)


def page(template: str, title: str, scripts: Iterable[str] = (), **values: object) -> str:
    """Return an HTML page with its style and scripts, which may fetch and run nothing else."""
    folder = files(__package__) / "templates"
    code = [(folder / name).read_text(encoding="utf-8") for name in ("page.css", *scripts)]
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in code]
    style, *others = [f"'sha256-{one}'" for one in hashes]
    policy = (
        f"default-src 'none'; img-src data:; style-src {style}; "
        f"script-src {' '.join(others) or chr(39) + 'none' + chr(39)}; "
        "base-uri 'none'; form-action 'none'"
    )
    first, *rest = map(Markup, code)
    return fill(template, title=title, style=first, scripts=rest, policy=policy, **values)

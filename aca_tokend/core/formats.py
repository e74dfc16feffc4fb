"""What a file says of a document: all of it, the token alone, a header, variables, or what a template makes of it.

Pure. A template sees the fields of the document and nothing else: it can neither call nor loop nor hold variables, so
it ends, and what it makes is bounded. No error holds a value.
"""

from __future__ import annotations

import json
import traceback
from dataclasses import dataclass
from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Literal

from aca_tokend.core.token import FIELDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jinja2.nodes import Template as Tree
    from jinja2.sandbox import SandboxedEnvironment

    from aca_tokend.core.token import Document, Value

Format = Literal["json", "token", "header", "env", "template"]

# Far more than any document. Sinks read no more of a file either.
MAX_BYTES = 1024 * 1024
PREFIX = "ACA_"
FILTERS = ("default", "escape", "length", "lower", "replace", "tojson", "trim", "upper", "urlencode")
TESTS = ("defined", "none", "string", "integer")

_WIDEST_INDENT = 16
_TOO_LARGE = "it would be larger than 1 MiB"
_FILE = "<template>"  # Jinja2's name for a template that comes from no file
_NO_PART = {
    "For": "a loop",
    "Assign": "a variable",
    "AssignBlock": "a variable",
    "With": "a variable",
    "Call": "a call",
    "Getattr": "an attribute",
    "Mul": "the operator *",
    "Pow": "the operator **",
    "Mod": "the operator %",
    "Macro": "a macro",
    "CallBlock": "a call block",
    "Include": "an include",
    "Import": "an import",
    "FromImport": "an import",
    "Extends": "a parent",
    "Block": "a block",
}
# What a template may meet: one field or the other may be empty, and the server may have named no lifetime.
_SAMPLES: tuple[Mapping[str, Value], ...] = (
    dict.fromkeys(FIELDS, "sample") | {"expires_in": 7200},
    dict.fromkeys(FIELDS, "sample") | {"expires_in": None, "scope": ""},
)


class RenderError(ValueError):
    """A document cannot be written in this format; the message says why and holds no value.

    `line` is the line of the template, 0 where there is none.
    """

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True, slots=True)
class TemplateProblem:
    """What is wrong with a template, and what to do; where a name is `unknown`, one of the `known` may be meant."""

    line: int
    problem: str
    fix: str = ""
    unknown: str = ""
    known: tuple[str, ...] = ()


def render(document: Document, form: Format, template: str = "") -> bytes:
    """The content of a file with this document. Raises RenderError."""
    # not the field for daemons: what only gained it must not differ, or an upgrade would run every hook
    fields = document.reader_fields()
    match form:
        case "json":
            text = json.dumps(document.fields(), separators=(",", ":")) + "\n"
        case "token":
            text = document.access_token.reveal()
        case "header":
            text = f"Authorization: {fields['authorization']}\n"
        case "env":
            text = "".join(_variable(name, value) for name, value in fields.items())
        case "template":
            text = _filled(template, fields)
    content = text.encode(errors="replace")
    if len(content) > MAX_BYTES:
        raise RenderError(_TOO_LARGE)
    return content


def _variable(name: str, value: Value) -> str:
    r"""One line that sh and systemd read alike: inside double quotes both take a backslash from before \ " $ and `."""
    text = "" if value is None else str(value)
    # Only these differ between them, and no field has any reason to hold one.
    if any(ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 for character in text):  # noqa: PLR2004 -- C0, C1
        message = f"{name} has a control character, which a variable cannot carry"
        raise RenderError(message)
    quoted = "".join("\\" + character if character in '\\"$`' else character for character in text)
    return f'{PREFIX}{name.upper()}="{quoted}"\n'


@lru_cache(maxsize=256)
def template_problem(template: str) -> TemplateProblem | None:
    """What is wrong with a template, as far as it shows before there is a token; None where nothing is."""
    try:
        return _problem(template)
    except (RecursionError, ValueError):  # of Jinja2, and of Python where it reads a number
        return TemplateProblem(0, "nested too deeply, or with a number too long", "make it simpler")


def _problem(template: str) -> TemplateProblem | None:
    from jinja2 import TemplateSyntaxError

    try:
        tree = _environment().parse(template)
    except TemplateSyntaxError as error:
        # what it was given instead may be anything, and is not repeated
        problem = (error.message or "not Jinja2").partition(", got")[0].partition(". ")[0].rstrip(".")
        return TemplateProblem(error.lineno, problem[0].lower() + problem[1:], "mend its syntax, which is Jinja2's")
    found = _unknown(tree)
    if found is not None:
        return found
    for sample in _SAMPLES:
        try:
            _filled(template, sample)
        except RenderError as error:
            return TemplateProblem(error.line, str(error), "mind that expires_in may be none and scope empty")
    return None


def _unknown(tree: Tree) -> TemplateProblem | None:
    from jinja2 import nodes

    for node in tree.find_all(nodes.Node):
        kind = type(node).__name__
        if kind in _NO_PART:
            return TemplateProblem(node.lineno, f"{_NO_PART[kind]}, which no template here may have", "leave it out")
        for a_kind, known in ((nodes.Name, FIELDS), (nodes.Filter, FILTERS), (nodes.Test, TESTS)):
            if isinstance(node, a_kind) and node.name not in known:
                problem = f"unknown {a_kind.__name__.lower()}"
                return TemplateProblem(node.lineno, problem, unknown=node.name, known=known)
    return None


def _filled(template: str, fields: Mapping[str, Value]) -> str:
    from jinja2 import TemplateError

    try:
        text: str = _environment().from_string(template).render(fields)
    except RenderError:
        raise
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, SyntaxError, RecursionError) as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == _FILE]
        line = frames[-1].lineno or 0 if frames else 0
        message = f"the template fails ({type(error).__name__})"
        raise RenderError(message, line) from None  # its own message may hold a value
    if not text.strip():
        message = "the template makes an empty file, which says that there is no token"
        raise RenderError(message)
    return text


@lru_cache(maxsize=1)
def _environment() -> SandboxedEnvironment:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    environment.globals.clear()
    filters = {**environment.filters, "replace": _replace, "tojson": _narrow(environment.filters["tojson"])}
    environment.filters = {name: _bounded(filters[name]) for name in FILTERS}
    return environment


def _bounded(apply: Callable[..., object]) -> Callable[..., object]:
    """Stops a chain of filters each of which makes more of what the one before made."""

    @wraps(apply)
    def bounded(*arguments: object, **named: object) -> object:
        result = apply(*arguments, **named)
        if isinstance(result, str) and len(result) > MAX_BYTES:
            raise RenderError(_TOO_LARGE)
        return result

    return bounded


def _narrow(tojson: Callable[..., object]) -> Callable[..., object]:
    """Jinja2's would make an indent of any width."""

    @wraps(tojson)  # by which Jinja2 knows to hand it its context
    def narrow(context: object, value: object, indent: int | None = None) -> object:
        if indent is not None and indent > _WIDEST_INDENT:
            raise RenderError(_TOO_LARGE)
        return tojson(context, value, indent)

    return narrow


def _replace(text: object, old: str, new: str) -> str:
    """Jinja2's would make the text, however long, and only then could anybody measure it."""
    text = str(text)
    if text.count(old) * len(new) > MAX_BYTES:
        raise RenderError(_TOO_LARGE)
    return text.replace(old, new)

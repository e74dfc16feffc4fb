"""Formats: what each file says of a document, to the byte, and what the programs that read it make of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from aca_tokend.core.formats import FILTERS, MAX_BYTES, RenderError, render, template_problem
from aca_tokend.core.secret import Secret
from aca_tokend.core.token import FIELDS
from tests.unit.file_writer import CANARY, document

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# What quoting has to survive: each character that a shell or systemd takes for something else, as a user name may have.
AWKWARD = [
    "plain",
    "",
    " spaces  around ",
    'double " quote',
    "single ' quote",
    "back\\slash \\n \\\\ \\",
    "$HOME ${HOME} $(id) $",
    "`id`",
    "a # comment ; semicolon",
    "= equals == !bang !! %h %%",
    "*.txt ~ [a-z] {a,b} <in >out | & ()",
    "Zoë Müller-Ωλυμπία 日本 🏢",
    "no\u00a0break",
    "-begins-with-a-hyphen",
]


def awkward(value: str) -> Any:  # noqa: ANN401
    """A document with this value wherever free text may stand."""
    return replace(document(1), username=value, authority=value, scope=value)


def test_json() -> None:
    """Json is the whole document as one line."""
    assert render(document(1), "json") == json.dumps(document(1).fields(), separators=(",", ":")).encode() + b"\n"


def test_token() -> None:
    """Token is the access token and nothing else, also no newline, and also where it begins with a hyphen."""
    assert render(document(1), "token") == f"{CANARY}-1".encode()
    assert render(replace(document(1), access_token=Secret("-x_y-z")), "token") == b"-x_y-z"


def test_header() -> None:
    """Header is one header line, as `curl --header @FILE` takes it."""
    assert render(document(1), "header") == f"Authorization: Bearer {CANARY}-1\n".encode()


def test_env() -> None:
    """Env is a line for each field, in double quotes; what is not known is empty."""
    content = render(replace(document(1), expires_in=None), "env").decode()
    assert content.startswith(f'ACA_ACCESS_TOKEN="{CANARY}-1"\nACA_TOKEN_TYPE="Bearer"\n')
    assert [line.partition("=")[0] for line in content.splitlines()] == [f"ACA_{field.upper()}" for field in FIELDS]
    assert 'ACA_EXPIRES_IN=""\n' in content


def by_shell(shell: str) -> Callable[[Path], dict[str, str]]:
    """What a shell that reads the file has in its variables."""

    def read(path: Path) -> dict[str, str]:
        script = 'set -eu; . "$1"; ' + "".join(f'printf "%s\\0" "$ACA_{field.upper()}"; ' for field in FIELDS)
        done = subprocess.run([shell, "-c", script, shell, str(path)], capture_output=True, check=True, env={})
        assert not done.stderr
        values = done.stdout.decode().split("\0")[:-1]
        return dict(zip((f"ACA_{field.upper()}" for field in FIELDS), values, strict=True))

    return read


def by_grammar(path: Path) -> dict[str, str]:
    """What systemd.exec(5) says of EnvironmentFile=, for lines of our kind. tests/system asks systemd."""
    values = {}
    text = path.read_text("utf-8")
    while text:
        name, _, text = text.partition('="')
        value = ""
        while not text.startswith('"'):
            if text.startswith("\\"):
                # inside double quotes only these are escaped; before any other character a backslash is one
                value, text = value + (text[1] if text[1] in '"\\`$' else text[:2]), text[2:]
            else:
                value, text = value + text[0], text[1:]
        assert text.startswith('"\n')
        values[name], text = value, text[2:]
    return values


READERS: dict[str, Callable[[Path], dict[str, str]]] = {"sh": by_shell("/bin/sh"), "grammar": by_grammar}
READERS |= {name: by_shell(path) for name in ("bash", "dash") if (path := shutil.which(name))}


@pytest.mark.parametrize("reader", READERS)
def test_env_is_read_alike(tmp_path: Path, reader: str) -> None:
    """Whoever reads env has exactly the values of the document, whatever characters are in them."""
    for number, value in enumerate(AWKWARD):
        fields = awkward(value).fields()
        path = tmp_path / str(number)
        path.write_bytes(render(awkward(value), "env"))
        expected = {f"ACA_{name.upper()}": str(content) for name, content in fields.items()}
        assert READERS[reader](path) == expected, value


@pytest.mark.parametrize("character", ["\n", "\r", "\0", "\x1b", "\x7f", "\x85"])
def test_env_cannot_carry_control_characters(character: str) -> None:
    """What a variable cannot carry to both is refused by the name of its field, and not shown."""
    with pytest.raises(RenderError) as caught:
        render(replace(document(1), username=f"{CANARY}{character}"), "env")
    assert str(caught.value) == "username has a control character, which a variable cannot carry"


TEMPLATES = {
    'proxy_set_header Authorization "{{ authorization }}";\n': f'proxy_set_header Authorization "Bearer {CANARY}-1";\n',
    "{{ access_token }}": f"{CANARY}-1",
    "{{ access_token | tojson }}": f'"{CANARY}-1"',
    "{{ username | upper }} {{ username[:3] }} {{ username ~ 1 }}": "SVC-BOOKINGS svc svc-bookings1",
    "{% if expires_in is none %}-{% else %}{{ expires_in }}{% endif %}": "7200",
    "{{ 'a&b' | urlencode }} {{ '<' | escape }} {{ 'aXa' | replace('a', 'b') }}": "a%26b &lt; bXb",
    "{# a comment #}{{ scope | default('none') }}{% raw %}{{ x }}{% endraw %}": "public{{ x }}",
    "{{ ' x ' | trim }}{{ 'Y' | lower }}{{ 'abc' | length }}": "xy3",
}


@pytest.mark.parametrize("template", TEMPLATES)
def test_template(template: str) -> None:
    """A template makes the file out of the fields, and check has nothing to say of it."""
    assert template_problem(template) is None
    assert render(document(1), "template", template).decode() == TEMPLATES[template]


@pytest.mark.parametrize(
    "template",
    [
        "{{ access_token.__class__.__mro__ }}",
        "{{ access_token['__class__'] }}",
        "{{ ''.join(['a']) }}",
        "{{ self }}",
        "{{ range(3) }}",
        "{{ lipsum() }}",
        "{{ cycler }}",
        "{{ namespace() }}",
        "{{ dict(a=1) }}",
        "{% import 'os' as os %}",
        "{% from 'os' import system %}",
        "{% include '/etc/passwd' %}",
        "{% extends 'x' %}",
        "{% macro x() %}{% endmacro %}",
        "{{ access_token | attr('x') }}",
        "{{ access_token | format }}",
        "{{ access_token | map('upper') }}",
        "{{ access_token | indent(100000000) }}",
        "{% for a in access_token %}{% endfor %}",
        "{% set a = 1 %}",
        "{% with a = 1 %}{{ a }}{% endwith %}",
        "{{ 'x' * 10000000000 }}",
        "{{ 9 ** 999999999 }}",
        "{{ '%1000000000d' % 1 }}",
        "{% filter upper %}x{% endfilter %}{{ joiner }}",
    ],
)
def test_template_reaches_nothing(template: str) -> None:
    """What would lead a template out of the document, or let it go on without end, is refused before there is one."""
    assert template_problem(template) is not None


@pytest.mark.parametrize(
    "template",
    [
        "{{ " + "(" * 3000 + "scope" + ")" * 3000 + " }}",
        "{{ scope" + " | upper" * 3000 + " }}",
        "{% if scope %}" * 150 + "x" + "{% endif %}" * 150,
        "{{ " + "9" * 5000 + " }}",
    ],
    ids=["parentheses", "filters", "ifs", "digits"],
)
def test_template_too_deep(template: str) -> None:
    """A template that Jinja2 or Python cannot take in is a problem of the configuration, not a bug."""
    assert template_problem(template) is not None


def test_template_is_bounded() -> None:
    """However its filters pile up, a template makes no more than a sink would read back."""
    grows = "{{ access_token" + " | replace('c', 'cccccccc')" * 40 + " }}"
    with pytest.raises(RenderError, match="larger than 1 MiB"):
        render(document(1), "template", grows)
    with pytest.raises(RenderError, match="larger than 1 MiB"):
        render(document(1), "template", "{{ access_token" + " | replace('', access_token)" * 9 + " }}")
    with pytest.raises(RenderError, match="larger than 1 MiB"):
        render(document(1), "template", "x" * MAX_BYTES + "y")
    with pytest.raises(RenderError, match="larger than 1 MiB"):
        render(document(1), "template", "{{ [scope] | tojson(indent=99999999999999) }}")


def test_template_makes_json_of_several_lines() -> None:
    """A template may have JSON indented, as far as anybody reads it."""
    assert render(document(1), "template", "{{ [scope] | tojson(indent=2) }}") == b'[\n  "public"\n]'


@pytest.mark.parametrize("template", ["{{ expires_in + 60 }}", "{{ 1 / (expires_in - 7200) }}", "{{ scope[99] }}", " "])
def test_template_that_fails(template: str) -> None:
    """A template that fails on a document says so without a value, and is not written."""
    failing = replace(document(1), expires_in=None) if "60" in template else document(1)
    with pytest.raises(RenderError) as caught:
        render(failing, "template", template)
    assert CANARY not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_environment_is_no_place_for_secrets() -> None:
    """A template does not see the environment of the daemon."""
    os.environ["ACA_TEST_CANARY"] = CANARY
    try:
        assert template_problem("{{ ACA_TEST_CANARY }}") is not None
    finally:
        del os.environ["ACA_TEST_CANARY"]
    assert set(FILTERS) >= {"tojson", "replace"}

"""What is known of a token is written by its own attempt alone: a look at the code."""

from __future__ import annotations

import ast
from pathlib import Path

import aca_tokend

PACKAGE = Path(aca_tokend.__file__).parent
# Each writes tokens of its own making.
WRITERS = {
    "rotation/rotator.py": "the attempt of a token",
    "doctor/accounts.py": "makes the attempt of a token that is on no schedule, and forgets it",
}


def written(module: Path) -> set[str]:
    """The fields of tokens that a module writes."""
    targets: list[ast.expr] = []
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        match node:
            case ast.Assign(targets=them) | ast.Delete(targets=them):
                targets += them
            case ast.AugAssign(target=one) | ast.AnnAssign(target=one):
                targets.append(one)
    inner = (it for target in targets for it in ast.walk(target))
    return {it.attr for it in inner if isinstance(it, ast.Attribute) and isinstance(it.ctx, ast.Store | ast.Del)}


def test_only_its_own_attempt_writes_a_token() -> None:
    """No other module assigns what is known of a token, or what it is made of: others send it messages."""
    writers = {
        module.relative_to(PACKAGE).as_posix()
        for module in PACKAGE.rglob("*.py")
        if not {"facts", "wiring"}.isdisjoint(written(module))
    }
    assert writers == set(WRITERS)

"""The package as it is installed."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import completion
import man

ROOT = Path(__file__).parents[2]


def test_wheel_brings_manual_and_completions(tmp_path: Path) -> None:
    """The wheel has the program, the man page and the completions where `man` and shells look, and no tests."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("aca_tokend-*.whl")
    with zipfile.ZipFile(wheel) as package:
        names = package.namelist()
        (data,) = {name.partition("/")[0] for name in names if ".data/" in name}
        shared = {
            name.removeprefix(f"{data}/data/share/"): package.read(name).decode()
            for name in names
            if name.startswith(f"{data}/")
        }
    assert shared == {
        "man/man1/aca-tokend.1": man.text(),
        "bash-completion/completions/aca-tokend": completion.bash(),
        "zsh/site-functions/_aca-tokend": completion.zsh(),
        "fish/vendor_completions.d/aca-tokend.fish": completion.fish(),
    }
    assert "aca_tokend/cli.py" in names
    assert not [name for name in names if name.startswith("tests/")]

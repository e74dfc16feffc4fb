"""Shows what each instrument says in each trouble, every cell by a run: `python -m tests.truth [--only TEXT]`."""

from __future__ import annotations

import argparse
import sys

from tests.truth.matrix import HEAD, row
from tests.truth.troubles import TROUBLES


def main() -> None:
    """Writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="the rows alone whose trouble has this in its name")
    options = parser.parse_args()
    sys.stdout.write(HEAD + "\n")
    for trouble in TROUBLES:
        if options.only in trouble.name:
            sys.stdout.write(row(trouble) + "\n")


if __name__ == "__main__":
    main()

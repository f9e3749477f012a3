"""The manifests that helm makes of the chart, which are committed beside their inputs' digest.

With the digest a test sees without helm that a change of the chart was not rendered.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CHART = ROOT / "deploy/helm/geolookup"
KUSTOMIZE = ROOT / "deploy/kustomize"
NAMESPACE = "geolookup"


@dataclass(frozen=True)
class Rendering:
    """Manifests as helm makes them.

    Attributes:
        name: of the variant.
        file: where they are committed.
        values: the variant's values; None: the chart's own.
        options: more of helm's.
    """

    name: str
    file: Path
    values: Path | None
    options: tuple[str, ...] = ()

    def digest(self) -> str:
        """Return what stands in the file's first line for all that it is made of."""
        inputs = sorted(path for path in CHART.rglob("*") if path.is_file())
        inputs += [self.values] if self.values else []
        digest = hashlib.sha256(" ".join(self.options).encode())
        for path in inputs:
            digest.update(f"{path.relative_to(ROOT)} {path.stat().st_size}\n".encode())
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def head(self) -> str:
        """Return the file's first line."""
        made_by = "Made from deploy/helm by python -m tests.cluster --write"
        return f"# {made_by}; inputs {self.digest()}\n"

    def render(self, helm: Path | str, *more: str) -> str:
        """Return the file as it should be."""
        command: Sequence[str] = [str(helm), "template", "geolookup", str(CHART), *self.options]
        command = [*command, f"--namespace={NAMESPACE}", *more]
        command += [f"--values={self.values}"] if self.values else []
        made = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return self.head() + made


def _variant(name: str) -> Rendering:
    return Rendering(name, HERE / f"rendered/{name}.yaml", HERE / f"variants/{name}.yaml")


BASE = Rendering("default", KUSTOMIZE / "base/geolookup.yaml", None)
MONITORING = Rendering(
    "monitoring",
    KUSTOMIZE / "monitoring/geolookup.yaml",
    None,
    ("--set=monitoring.enabled=true", "--show-only=templates/monitoring.yaml"),
)
VARIANTS = tuple(map(_variant, ("everything", "image-volume", "init-container")))
ALL = (BASE, MONITORING, *VARIANTS)

"""Add what a wheel bundles to an SBOM: merge_sbom.py SBOM WHEEL.

auditwheel writes its own SBOM into the wheel, of the libraries that it copied from the system.
"""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path


def main() -> None:
    path = Path(sys.argv[1])
    whole = json.loads(path.read_text(encoding="utf-8"))
    with zipfile.ZipFile(sys.argv[2]) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith("auditwheel.cdx.json"))
        bundled = json.loads(wheel.read(name))["components"]
    known = {component.get("purl") for component in whole["components"]}
    for component in bundled:
        # The wheel itself is known under another name; a package of two libraries stands twice.
        if component["name"] != "geolookup" and component["purl"] not in known:
            known.add(component["purl"])
            whole["components"].append(component)
    path.write_text(json.dumps(whole, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    names = sorted(f"{one['name']} {one.get('version', '')}".strip() for one in whole["components"])
    print(f"{path.name}: {len(names)} components: {', '.join(names)}")


if __name__ == "__main__":
    main()

#!/usr/bin/env bash
# kubernetes-validate 1.37.0 (PyPI), 2026-11-30
#
# One would guess: a manifest that passes Kubernetes' own schemas, strictly, is one that its API
# server takes. It is so: the schemas hold names and types of fields, and none of the rules that the
# server has in code, so that most mistakes of a person who knows the fields pass.
#
# Seen, with the schemas of 1.34; below each the answer of kube-apiserver 1.34.4 to the same:
#   an unknown field: refused
#     .spec.replica: field not declared in schema
#   a selector that misses the pods: passed
#     `selector` does not match template `labels`
#   a mount without its volume: passed
#     spec.template.spec.containers[0].volumeMounts[0].name: Not found: "data"
#   a request above its limit: passed
#     Invalid value: "2Gi": must be less than or equal to memory limit of 1Gi
#   a window of 3900 seconds: passed
#     Invalid value: 3900: must be less than or equal to 3600
#   a port beyond 65535: passed
#     Invalid value: 70000: must be between 1 and 65535, inclusive
#
# Exits non-zero if others pass.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet kubernetes-validate==1.37.0
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import copy
import sys

import kubernetes_validate

container = {
    "name": "web",
    "image": "web:1",
    "ports": [{"containerPort": 80}],
    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    "resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "1Gi"}},
}
deployment = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web"},
    "spec": {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [container], "volumes": [{"name": "data", "emptyDir": {}}]},
        },
    },
}
autoscaler = {
    "apiVersion": "autoscaling/v2",
    "kind": "HorizontalPodAutoscaler",
    "metadata": {"name": "web"},
    "spec": {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "maxReplicas": 3,
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 300}},
    },
}
mistakes = {
    "an unknown field": (deployment, ("spec", "replica"), 2),
    "a selector that misses the pods": (deployment, ("spec", "selector", "matchLabels", "app"), "x"),
    "a mount without its volume": (deployment, ("spec", "template", "spec", "volumes"), []),
    "a request above its limit": (
        deployment,
        ("spec", "template", "spec", "containers", 0, "resources", "requests", "memory"),
        "2Gi",
    ),
    "a window of 3900 seconds": (
        autoscaler,
        ("spec", "behavior", "scaleDown", "stabilizationWindowSeconds"),
        3900,
    ),
    "a port beyond 65535": (
        deployment,
        ("spec", "template", "spec", "containers", 0, "ports", 0, "containerPort"),
        70000,
    ),
}
passed = []
for name, (manifest, path, value) in mistakes.items():
    spoilt = inner = copy.deepcopy(manifest)
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    try:
        kubernetes_validate.validate(spoilt, "1.34", strict=True)
    except kubernetes_validate.ValidationError:
        print(f"{name}: refused")
    else:
        print(f"{name}: passed")
        passed.append(name)
sys.exit(0 if passed == list(mistakes)[1:] else "changed")
PYTHON

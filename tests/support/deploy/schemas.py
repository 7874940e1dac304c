"""JSON Schemas of Kubernetes and of the operators, made of their own sources: those that kubeconform
knows are on a site that many networks do not allow.

Kubernetes publishes one OpenAPI document; KEDA and the Prometheus operator publish custom resource definitions. Objects whose
properties are known take no others, as the API server says it of a manifest that is applied with strict validation.
"""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from support.deploy import tools

KUBERNETES = ("k8s.io/kubernetes", "v1.36.3")
VERSION = KUBERNETES[1].removeprefix("v")
CUSTOM = {
    ("github.com/kedacore/keda/v2", "v2.20.2"): ["config/crd/bases/keda.sh_scaledobjects.yaml"],
    ("github.com/prometheus-operator/prometheus-operator", "v0.85.0"): [
        "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
    ],
}
LOCATION = "{{.ResourceKind}}-{{.Group}}-{{.ResourceAPIVersion}}.json"  # how kubeconform finds the schema of an object
Schema = dict[str, Any]


def write(folder: Path) -> str:
    """Write all schemas to a folder; the location to give to kubeconform."""
    for kind, group, version, schema in (*_kubernetes(), *_custom()):
        # of the group without a name kubeconform repeats the version
        (folder / f"{kind.lower()}-{group or version}-{version}.json").write_text(json.dumps(schema))
    return f"{folder}/{LOCATION}"


def _kubernetes() -> Iterator[tuple[str, str, str, Schema]]:
    path = tools.module(*KUBERNETES) / "api" / "openapi-spec" / "swagger.json"
    definitions: dict[str, Schema] = json.loads(path.read_text(encoding="utf-8"))["definitions"]
    strict = {name: _strict(definition) for name, definition in definitions.items()}

    @cache
    def needed(name: str) -> frozenset[str]:
        found, waiting = set[str](), [name]
        while waiting:
            one = waiting.pop()
            if one not in found:
                found.add(one)
                waiting += _references(strict[one])
        return frozenset(found)

    for name, definition in strict.items():
        for named in definition.get("x-kubernetes-group-version-kind", ()):
            used = {one: strict[one] for one in needed(name)}
            yield named["kind"], named["group"], named["version"], {"$ref": f"#/definitions/{name}", "definitions": used}


def _custom() -> Iterator[tuple[str, str, str, Schema]]:
    for (module, version), files in CUSTOM.items():
        for file in files:
            spec = yaml.safe_load((tools.module(module, version) / file).read_text(encoding="utf-8"))["spec"]
            for one in spec["versions"]:
                yield spec["names"]["kind"], spec["group"], one["name"], _strict(one["schema"]["openAPIV3Schema"], top=True)


def _strict(schema: Any, *, top: bool = False) -> Any:
    """The schema, with no property allowed that it does not name, and with its own words for a number that may be a text."""
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string") or schema.get("format") == "int-or-string":
        return {"type": ["string", "integer"]}
    made = {key: _strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict):
        made["properties"] = {name: _strict(value) for name, value in schema["properties"].items()}
        if "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            made["additionalProperties"] = False
    if top:  # the API server knows metadata without being told
        made["properties"]["metadata"] = {"type": "object"}
    return made


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, list):
        for one in schema:
            yield from _references(one)
    elif isinstance(schema, dict):
        reference = schema.get("$ref")
        if isinstance(reference, str):
            yield reference.removeprefix("#/definitions/")
        for value in schema.values():
            yield from _references(value)

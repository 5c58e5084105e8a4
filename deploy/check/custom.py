"""Checks the custom resources of manifests (standard input) against the schemas of their operators, strictly.

The schemas are downloaded once into .tools/crds, and pinned by hash. A kind without one is an error.
"""

import hashlib
import pathlib
import sys
import urllib.request

import jsonschema
import yaml

FOLDER = pathlib.Path(__file__).resolve().parents[2] / ".tools/crds"
KEDA = "https://raw.githubusercontent.com/kedacore/keda/v2.20.2/config/crd/bases/keda.sh_"
CNPG = "https://raw.githubusercontent.com/cloudnative-pg/cloudnative-pg/v1.30.0/config/crd/bases/postgresql.cnpg.io_"
SCHEMAS = {
    "Cluster": (CNPG + "clusters.yaml", "ae47f4a00f6e998faef57e480f9a3960cd48ea16a79270861fc7442601507472"),
    "ScaledObject": (KEDA + "scaledobjects.yaml", "af35555862a83933b074af14ad439c4b4ceabaf4daa3e9338e9b23e36d308d80"),
    "TriggerAuthentication": (KEDA + "triggerauthentications.yaml", "275307b4cb19ca8f0f506a879282aa4c67587ac16ec757f494d6585c5c185d65"),
}


def is_custom(manifest):
    group = manifest["apiVersion"].rpartition("/")[0]
    return "." in group and not group.endswith(".k8s.io")


def definition(kind):
    """The CustomResourceDefinition of a kind."""
    url, wanted = SCHEMAS[kind]
    file = FOLDER / url.rpartition("/")[2]
    if not file.exists() or hashlib.sha256(file.read_bytes()).hexdigest() != wanted:
        with urllib.request.urlopen(url, timeout=30) as response:
            text = response.read()
        if hashlib.sha256(text).hexdigest() != wanted:
            sys.exit(f"`{url}` is not the file that is pinned")
        FOLDER.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text)
    return yaml.load(file.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def strict(schema):
    """The schema, with properties that it does not name forbidden."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    made = {key: strict(part) for key, part in schema.items()}
    if isinstance(schema.get("properties"), dict) and "type" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made


def check(manifest):
    kind, version = manifest["kind"], manifest["apiVersion"].rpartition("/")[2]
    spec = definition(kind)["spec"]
    [schema] = [known["schema"]["openAPIV3Schema"] for known in spec["versions"] if known["name"] == version]
    schema = strict(schema)
    # Those of every object, which the definition leaves out.
    schema["properties"]["metadata"] = {"type": "object"}
    for error in jsonschema.Draft202012Validator(schema).iter_errors(manifest):
        yield f"{kind} `{manifest['metadata']['name']}`: {'.'.join(map(str, error.path))}: {error.message}"


def main():
    manifests = [manifest for manifest in yaml.safe_load_all(sys.stdin) if is_custom(manifest)]
    kinds = sorted({manifest["kind"] for manifest in manifests})
    if missing := [kind for kind in kinds if kind not in SCHEMAS]:
        sys.exit(f"no schema is known of {', '.join(missing)}")
    if not manifests:
        sys.exit("there are no custom resources")
    try:
        found = [complaint for manifest in manifests for complaint in check(manifest)]
    except OSError as error:
        print(f"{', '.join(kinds)} were not checked: their schemas cannot be downloaded: {error}")
        sys.exit(77)
    print("\n".join([*found, f"checked: {', '.join(kinds)}"]))
    sys.exit(bool(found))


if __name__ == "__main__":
    main()

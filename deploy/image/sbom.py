#!/usr/bin/env python3
"""Writes the software bill of materials (SBOM) of an image as CycloneDX 1.6: linked crates, wheels of libtorch, Debian packages.

It depends only on what is pinned in this repository and installed in the image, so equal inputs give equal bytes.
usage: sbom.py cpu|cuda [/var/lib/dpkg/status] > sbom.cdx.json
"""

import json
import pathlib
import re
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAMS = ["server", "worker"]
TARGET = "x86_64-unknown-linux-gnu"


def crates():
    """Every crate that is linked into the programs, with its dependencies; build dependencies are left out."""
    command = ["cargo", "metadata", "--locked", "--format-version=1", f"--filter-platform={TARGET}"]
    metadata = json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    locked = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    checksums = {(package["name"], package["version"]): package.get("checksum") for package in locked}

    def needs(identity):
        linked = lambda dep: any(kind["kind"] is None for kind in dep["dep_kinds"])
        procedural = lambda dep: any("proc-macro" in target["kind"] for target in packages[dep["pkg"]]["targets"])
        return sorted(dep["pkg"] for dep in nodes[identity]["deps"] if linked(dep) and not procedural(dep))

    members = set(metadata["workspace_members"])
    todo = [identity for identity in sorted(members) if packages[identity]["name"] in PROGRAMS]
    reached = {}
    while todo:
        identity = todo.pop()
        if identity not in reached:
            reached[identity] = needs(identity)
            todo += reached[identity]

    purl = lambda identity: f"pkg:cargo/{packages[identity]['name']}@{packages[identity]['version']}"
    for identity, deps in reached.items():
        package = packages[identity]
        component = {"type": "library", "bom-ref": purl(identity), "name": package["name"], "version": package["version"]}
        if identity not in members:
            component["purl"] = purl(identity)
        if checksum := checksums[package["name"], package["version"]]:
            component["hashes"] = [{"alg": "SHA-256", "content": checksum}]
        if package["license"]:
            # Old crates write `MIT/Apache-2.0`, which is not an SPDX expression.
            component["licenses"] = [{"expression": re.sub(r"\s*/\s*", " OR ", package["license"])}]
        yield component, [purl(dep) for dep in deps]


def wheels(device):
    """The wheels of libtorch, from the lists that pin them."""
    for name in ["libtorch.txt"] + ["libtorch-cuda.txt"] * (device == "cuda"):
        for pin in re.finditer(r"^(\S+)==(\S+) --hash=sha256:(\w+)$", (ROOT / "scripts" / name).read_text(), re.MULTILINE):
            name, version, digest = pin.groups()
            purl = f"pkg:pypi/{name}@{version}"
            yield {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl, "hashes": [{"alg": "SHA-256", "content": digest}]}


def debian(status):
    """The installed packages of a root, from the status file of dpkg."""
    for record in pathlib.Path(status).read_text().split("\n\n"):
        fields = dict(re.findall(r"^(\S+): (.*)$", record, re.MULTILINE))
        if fields.get("Status") == "install ok installed":
            name, version = fields["Package"], fields["Version"]
            purl = f"pkg:deb/debian/{name}@{version.replace(':', '%3A').replace('+', '%2B')}?arch={fields['Architecture']}"
            yield {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def main():
    device, *status = sys.argv[1:]
    if device not in ("cpu", "cuda"):
        sys.exit(f"sbom: unknown device `{device}`; use `cpu` or `cuda`")
    components, dependencies = [], []
    for component, needs in crates():
        components.append(component)
        dependencies.append({"ref": component["bom-ref"], "dependsOn": needs})
    components += wheels(device)
    for path in status:
        components += debian(path)
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", "bom-ref": "syncdiffusion", "name": "syncdiffusion", "version": version}},
        "components": sorted(components, key=lambda component: component["bom-ref"]),
        "dependencies": sorted(dependencies, key=lambda dependency: dependency["ref"]),
    }
    json.dump(document, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()

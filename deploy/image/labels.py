#!/usr/bin/env python3
"""Prints the labels by which Cog's tools recognise an image, as NAME=VALUE with a null byte after each.

They equal those of `cog build`: the version of Cog, and cog.yaml and openapi.yaml as JSON.
"""

import json
import pathlib
import re

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]


def labels():
    """The labels: name to text."""
    compact = lambda path: json.dumps(yaml.safe_load((ROOT / path).read_text()), separators=(",", ":"))
    # The version of Cog whose contract the server keeps.
    version = re.search(r'COG_VERSION: &str = "(.+)"', (ROOT / "crates/server/src/http/health.rs").read_text())
    return {
        "run.cog.version": version[1],
        "run.cog.config": compact("cog.yaml"),
        "run.cog.openapi_schema": compact("openapi.yaml"),
    }


if __name__ == "__main__":
    for name, value in labels().items():
        print(f"{name}={value}", end="\0")

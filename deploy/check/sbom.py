"""Validates a software bill of materials against the schema of CycloneDX and checks that it lists the main components."""

import json
import pathlib
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

text = pathlib.Path(sys.argv[1]).read_text()
if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
    sys.exit(str(error))
names = {component["name"] for component in json.loads(text)["components"]}
if missing := {"server", "worker", "axum", "tch", "torch", "nvidia-cuda-runtime"} - names:
    sys.exit(f"the SBOM lacks: {', '.join(sorted(missing))}")

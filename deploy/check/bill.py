"""Validates a bill of materials against the schema of CycloneDX, and looks for what must be in it."""

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
    sys.exit(f"not in it: {', '.join(sorted(missing))}")

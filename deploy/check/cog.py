"""Checks that cog.yaml, its predictor and the labels of the image all describe the model of openapi.yaml."""

import ast
import json
import pathlib
import subprocess
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
TYPES = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "Path": {"type": "string", "format": "uri"},
    "list[str]": {"type": "array", "items": {"type": "string"}},
}
BOUNDS = {"ge": "minimum", "le": "maximum", "default": "default", "description": "description", "choices": "enum"}
# Cog has no word for the number of items, and its predictors return either one picture or several.
NOT_COGS = {"title", "maxItems"}
NOT_PREDICTED = {"num_outputs"}


def signature(path, name):
    """The inputs of a predictor, in the words of OpenAPI, and the name of what it returns."""
    module = ast.parse(path.read_text())
    found = [node for node in module.body if isinstance(node, ast.ClassDef) and node.name == name]
    predict = next(node for node in found[0].body if isinstance(node, ast.FunctionDef) and node.name == "predict")
    arguments = predict.args.args[1:]
    inputs = {}
    for order, (argument, call) in enumerate(zip(arguments, predict.args.defaults, strict=True)):
        said = {BOUNDS[word.arg]: ast.literal_eval(word.value) for word in call.keywords}
        kind, *optional = ast.unparse(argument.annotation).split(" | ")
        if optional:
            said = {key: value for key, value in said.items() if key != "default"} | {"nullable": True}
        inputs[argument.arg] = {**TYPES[kind], "x-order": order, **said}
    return inputs, predict.returns.id


cog = yaml.safe_load((ROOT / "cog.yaml").read_text())
openapi = yaml.safe_load((ROOT / "openapi.yaml").read_text())
path, name = cog["predict"].split(":")
described, returned = signature(ROOT / path, name)
schemas = openapi["components"]["schemas"]
served = {
    name: {key: value for key, value in field.items() if key not in NOT_COGS}
    for name, field in schemas["Input"]["properties"].items()
    if name not in NOT_PREDICTED
}
for name in sorted(described.keys() | served.keys()):
    if described.get(name) != served.get(name):
        sys.exit(f"`{name}` is {described.get(name)} in {path} and {served.get(name)} in openapi.yaml")
required = [name for name, field in described.items() if "default" not in field and "nullable" not in field]
if required != schemas["Input"]["required"]:
    sys.exit(f"{path} requires {required}, openapi.yaml {schemas['Input']['required']}")
if (returned, schemas["Output"]["format"]) != ("Path", "uri"):
    sys.exit(f"{path} returns {returned}")

printed = subprocess.run([sys.executable, ROOT / "deploy/image/labels.py"], check=True, stdout=subprocess.PIPE, text=True).stdout
labels = dict(label.split("=", 1) for label in printed.rstrip("\0").split("\0"))
if json.loads(labels["run.cog.openapi_schema"]) != openapi or json.loads(labels["run.cog.config"]) != cog:
    sys.exit("the labels differ from cog.yaml or openapi.yaml")
if not labels["run.cog.version"]:
    sys.exit("the labels lack the version of Cog")

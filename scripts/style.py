#!/usr/bin/env python3
"""style.py: fails on what rustfmt, clippy and typos do not see, and prints each line (CONTRIBUTING.md, "Style").

In Rust: one module path for each `use`, no `#[path]`, limits are `MAX_*` or `MIN_*`, comments of at most 120 columns. In
everything that people read: some phrases that are not plain English.
"""

import re
import subprocess
import sys
from pathlib import Path

RUST = [
    (re.compile(r"^ *(?:pub(?:\([^)]*\))? +)?use [^;{]*\{[^;]*(?:::|\{)[^;]*;", re.M), "one `use` for each module path"),
    (re.compile(r"^ *#!?\[path\b.*", re.M), "share code by a crate or a module, not by `#[path]`"),
    (re.compile(r"\b(?:const|static) (?:MOST|LEAST|LONGEST|SHORTEST|LARGEST|SMALLEST|WIDEST|HIGHEST|LOWEST)(?:_\w*)?\b"),
     "limits are named `MAX_*` or `MIN_*`"),
    (re.compile(r"^(?=.{121}) *//.*", re.M), "comments have at most 120 columns, like code"),
]  # fmt: skip

WORDS = [
    (r"(?<!there )(?<!which )\b(?:is|are|was|were) no (?!longer|more|less|fewer|other\b|one\b)[a-z`]", "is not a"),
    (r"(?<!there )\b(?:is|are|was|were) (?-i:none)\b", "is not, does not, does not have"),
    (r"\b(?:would|will|that) do\b(?! (?:not|so|that|this|it))", "would work; valid"),
    (r"\b(?:give|gives|giving|given|gave) out\b", "return, serve, hand over"),
    (r"\bmend(?:s|ed|ing)?\b", "fix"),
    (r"\bat hand\b", "(leave it out); current"),
    (r"\banew\b", "again"),
    (r"\bfor good\b", "permanently"),
    (r"\bso (?:many|long|much)\b(?! (?:as|that|more|less))", "a name for the number"),
    (r"\b(?:the )?way (?:back|there) through\b", "forward, backward"),
    (r"\b(?:courier|letter-box|crew|barracks)\b", "the terms of ARCHITECTURE.md"),
]
WORDS = [(re.compile(pattern, re.I), better) for pattern, better in WORDS]

READ = {".rs", ".md", ".py", ".sh", ".yaml", ".yml", ".toml", ".html", ".js", ".css", ".conf", ".service", ""}
# Data, the licences of others, and the lists of words themselves.
NOT_READ = re.compile(r"^(models/|tests/fixtures/|training/demo_model/captions|tests/reference/texts|LICENSE|scripts/(style|tests/))")


def files():
    listed = subprocess.run(["git", "ls-files", "-z"], check=True, capture_output=True, text=True).stdout
    return [path for path in map(Path, listed.split("\0")[:-1]) if path.is_file()]


def complaints(name, text, rules):
    for pattern, better in rules:
        for found in pattern.finditer(text):
            line = text.count("\n", 0, found.start()) + 1
            yield f"{name}:{line}: `{' '.join(found[0].split())[:60]}`: {better}"


def main():
    found = []
    for path in files():
        if path.suffix in READ and not NOT_READ.match(str(path)):
            text = path.read_text()
            found += complaints(path, text, (RUST if path.suffix == ".rs" else []) + WORDS)
    print("\n".join(found))
    sys.exit(bool(found))


if __name__ == "__main__":
    main()

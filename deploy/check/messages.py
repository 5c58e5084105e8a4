"""Checks that every message explained in docs/troubleshooting.md occurs in the source, word for word."""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def plain(text):
    """The text without line breaks inside strings and without backticks, so that only the wording is compared."""
    text = re.sub(r"\\\n\s*", "", text)
    return re.sub(r"\s+", " ", text.replace("`", ""))


said = plain("\n".join(path.read_text() for path in sorted((ROOT / "crates").glob("*/src/**/*.rs"))))
missing, messages = [], 0
for line in (ROOT / "docs/troubleshooting.md").read_text().splitlines():
    first = re.match(r"\| (?:\d+ )?`([^`]+)` (?!\(of)", line)
    # Settings, and messages of other programs.
    if not first or first[1].startswith(("error while loading", "CUDA out of memory", "urls")):
        continue
    messages += 1
    for part in first[1].split("..."):
        part = plain(part).strip(" ();:,")
        if part and part not in said:
            missing.append(part)
if missing or not messages:
    sys.exit("messages that are not in the source: " + "; ".join(missing))

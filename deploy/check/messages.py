"""Checks that the program says every message that docs/troubleshooting.md explains, word by word."""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def plain(text):
    """Without line breaks inside strings, quotes and places for values, so that wording is all that counts."""
    text = re.sub(r"\\\n\s*", "", text)
    return re.sub(r"\s+", " ", text.replace("`", ""))


said = plain("\n".join(path.read_text() for path in sorted((ROOT / "crates").glob("*/src/**/*.rs"))))
missing, messages = [], 0
for line in (ROOT / "docs/troubleshooting.md").read_text().splitlines():
    first = re.match(r"\| (?:\d+ )?`([^`]+)` (?!\(of)", line)
    # Settings and what others say are no messages of ours.
    if not first or first[1].startswith(("error while loading", "CUDA out of memory", "urls")):
        continue
    messages += 1
    for part in first[1].split("..."):
        part = plain(part).strip(" ();:,")
        if part and part not in said:
            missing.append(part)
if missing or not messages:
    sys.exit("nobody says: " + "; ".join(missing))

#!/usr/bin/env python3
"""markdown.py: checks every Markdown file of the project, its links to files and headings, and its form.

Links to other sites are not followed. Lines have at most 120 columns, except rows of tables, code, and lines that cannot
be broken.
"""

import re
import subprocess
import sys
from pathlib import Path

LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)[^)]*\)|^\[[^\]]+\]: *(\S+)", re.M)
CODE = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)", re.S)
FENCE = re.compile(r"^( *)```(.*)$")


def blank(found):
    return re.sub(r"[^\n]", "x", found[0])


def prose(text):
    """The lines of a text; those of code blocks are empty, with whether each is in one."""
    inside, lines = False, []
    for line in text.splitlines():
        fence = FENCE.match(line)
        lines.append(("", True) if inside or fence else (line, False))
        inside ^= bool(fence)
    return lines


def anchors(path):
    """The anchors of a file's headings, as GitHub makes them."""
    made = {}
    for line, _ in prose(path.read_text()):
        if heading := re.match(r"#{1,6} +(.*)", line):
            text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).strip().lower()
            slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
            made[slug] = made.get(slug, -1) + 1
    return {slug + (f"-{n}" if n else "") for slug, last in made.items() for n in range(last + 1)}


def links(path):
    """What is wrong with the links of a file."""
    text = CODE.sub(blank, "\n".join(line for line, _ in prose(path.read_text())))
    for found in LINK.finditer(text):
        target = found[1] or found[2]
        number = text.count("\n", 0, found.start()) + 1
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = path.parent / name if name else path
        if not file.exists():
            yield number, f"`{name}` does not exist"
        elif anchor and file.suffix == ".md" and anchor not in anchors(file):
            yield number, f"`{file}` has no heading `#{anchor}`"


def form(path):
    """What is wrong with the form of a file."""
    text = path.read_text()
    if not text.endswith("\n") or text.endswith("\n\n"):
        yield len(text.splitlines()), "the file must end with one line break"
    lines = prose(text)
    for number, (line, code) in enumerate(lines, 1):
        before, after = (lines[at] if 0 <= at < len(lines) else ("", False) for at in (number - 2, number))
        if not code and line.rstrip() != line:
            yield number, "white space at the end of the line"
        words = CODE.sub(blank, re.sub(r"^\s*[-*\d.]*\s*", "", line))
        if len(line) > 120 and not line.startswith("|") and re.search(r"\S\s+\S", words):
            yield number, f"{len(line)} columns; the limit is 120"
        if line.startswith("#") and (before[0] or (after[0] and not after[1])):
            yield number, "a heading needs an empty line before and after it"
        if line.startswith("|") and before[0].startswith("|") and cells(line) != cells(before[0]):
            yield number, "this row of the table has another number of cells than the one before"
        if line.startswith("#") and number > 1 and re.match(r"# ", line):
            yield number, "a second title; use `##`"


def cells(row):
    return CODE.sub(blank, row).replace("\\|", "").count("|")


def main():
    listed = subprocess.run(["git", "ls-files", "-z", "*.md"], check=True, capture_output=True, text=True).stdout
    failed = False
    for path in map(Path, listed.split("\0")[:-1]):
        for number, complaint in sorted([*links(path), *form(path)]) if path.is_file() else ():
            failed = True
            print(f"{path}:{number}: {complaint}")
    sys.exit(failed)


if __name__ == "__main__":
    main()

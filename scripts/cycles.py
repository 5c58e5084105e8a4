#!/usr/bin/env python3
"""cycles.py CRATE...: fails if files of a crate use each other in a circle, and prints the lines that make it one.

`use` declarations and paths through `crate`, `super`, `self` and child modules count; a name that a module re-exports is
followed to the file that defines it. `mod child;` is not a use, nor is a re-export that its own file does not need. Tests are
left out.
"""

import re
import sys
from pathlib import Path

COMMENT_OR_TEXT = re.compile(r'//[^\n]*|/\*.*?\*/|r(#*)".*?"\1|b?"(?:\\.|[^"\\])*"|\'(?:\\.|[^\\\'])\'', re.S)
TESTS = re.compile(r"#\[cfg\((?:test|all\(test)[^\n]*\]\s*(?:#\[[^\n]*\]\s*)*(?:pub(?:\([^)]*\))? )?mod (\w+)\s*([;{])")
USE = re.compile(r"(pub(?:\([^)]*\))?\s+)?\buse\s+([^;]+);")
PATH = re.compile(r"(?<![\w:])\w+(?:::\w+)+")


def without(text, start, end):
    """The text with a part blanked, so that lines keep their numbers."""
    return text[:start] + re.sub(r"[^\n]", " ", text[start:end]) + text[end:]


def code(path):
    """The code of a file without comments, strings and inline tests; and the modules that only tests have."""
    text = COMMENT_OR_TEXT.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), path.read_text())
    hidden = set()
    while found := TESTS.search(text):
        hidden.add(found[1])
        end = found.end()
        depth = int(found[2] == "{")
        while depth and end < len(text):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        text = without(text, found.start(), end)
    return text, hidden


def flat(tree):
    """The paths of a tree of `use`, each with the name that it brings: `a::{b, c as d}` is (a::b, b), (a::c, d)."""
    tree = tree.strip()
    if not tree.endswith("}"):
        path, _, name = tree.partition(" as ")
        path = path.removesuffix("::self").split("::")
        return [(path, name.strip() or path[-1])] if path != [""] else []
    head, _, rest = tree.partition("{")
    parts, depth = [""], 0
    for letter in rest[:-1]:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return [found for part in parts if part.strip() for found in flat(head.strip() + part.strip())]


class Crate:
    def __init__(self, root):
        self.files, self.uses, hidden = {}, {}, set()
        for path in sorted((root / "src").rglob("*.rs")):
            inside = path.relative_to(root / "src").with_suffix("").parts
            if inside[0] == "bin":
                continue
            module = inside[:-1] if inside[-1] in ("mod", "lib", "main") else inside
            text, tests = code(path)
            hidden |= {(*module, name) for name in tests}
            self.files[module] = (path, text)
        self.files = {
            module: file for module, file in self.files.items() if not any(module[:n] in hidden for n in range(1, 9))
        }
        for module, (_, text) in self.files.items():
            self.uses[module] = [
                (use, path, name) for use in USE.finditer(text) for path, name in flat(" ".join(use[2].split()))
            ]

    def resolve(self, module, path, seen=()):
        """The module whose file defines what a path means in a module; None if that is outside the crate."""
        if (module, tuple(path)) in seen:
            return None
        seen = (*seen, (module, tuple(path)))
        first, *rest = path
        if first == "crate":
            return self.inside((), rest, seen)
        if first == "self":
            return self.inside(module, rest, seen)
        if first == "super":
            return self.resolve(module[:-1], ["self", *rest], seen)
        return self.inside(module, path, seen) if (*module, first) in self.files else None

    def inside(self, module, path, seen):
        if path and (*module, path[0]) in self.files:
            return self.inside((*module, path[0]), path[1:], seen)
        for _, use, name in self.uses[module] if path else ():
            if name == path[0] and use != path:
                return self.resolve(module, [*use, *path[1:]], seen) or module
        return module

    def edges(self):
        """Which file uses which, and the first line that does."""
        edges = {module: {} for module in self.files}
        for module, (path, text) in self.files.items():
            rest = text
            for use, _, _ in self.uses[module]:
                rest = without(rest, use.start(), use.end())
            found = [(use.start(), used) for use, used, name in self.uses[module]
                     if not use[1] or re.search(rf"\b{re.escape(name)}\b", rest)]
            found += [(path.start(), path[0].split("::")) for path in PATH.finditer(rest)]
            for at, used in sorted(found):
                target = self.resolve(module, used)
                if target is not None and target != module:
                    number = text.count("\n", 0, at) + 1
                    edges[module].setdefault(target, f"{path}:{number}: {text.splitlines()[number - 1].strip()}")
        return edges


def circles(edges):
    """The sets of modules that reach each other."""
    reach = {}
    for start in edges:
        reach[start], todo = set(), [start]
        while todo:
            new = edges[todo.pop()].keys() - reach[start]
            reach[start] |= new
            todo += new
    return {frozenset(other for other in reach[one] if one in reach[other]) for one in edges if one in reach[one]}


def main():
    failed = False
    for root in map(Path, sys.argv[1:]):
        edges = Crate(root).edges()
        for circle in sorted(circles(edges), key=sorted):
            failed = True
            print(f"{root}: {len(circle)} files use each other in a circle:")
            for module in sorted(circle):
                for target in sorted(edges[module].keys() & circle):
                    print(f"  {'::'.join(module) or 'the root'} -> {'::'.join(target) or 'the root'}: {edges[module][target]}")
    sys.exit(failed)


if __name__ == "__main__":
    main()

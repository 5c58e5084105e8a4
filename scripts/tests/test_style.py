"""What `style.py` and `markdown.py` complain of."""

import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import markdown
import style


class Style(unittest.TestCase):
    def found(self, text, rules):
        return [complaint.split("`: ")[1] for complaint in style.complaints("x", text, rules)]

    def test_uses_of_rust(self):
        for good in ("use std::sync::{Arc, Mutex};", "use crate::b::{self, B};", "use a::B;\nuse a::c::D;"):
            self.assertEqual(self.found(good, style.RUST), [], good)
        for bad in ("use std::{fmt, sync::Arc};", "pub(crate) use crate::{\n    a::A,\n    b::B,\n};", "use a::{b::{C, D}};"):
            self.assertEqual(self.found(bad, style.RUST), ["one `use` for each module path"], bad)

    def test_names_and_paths_of_rust(self):
        self.assertEqual(self.found("const MAX_ID: u8 = 1; const MOSTLY: u8 = 1;", style.RUST), [])
        self.assertEqual(len(self.found("const MOST_IDS: u8 = 1; static LONGEST: u8 = 1;", style.RUST)), 2)
        self.assertEqual(len(self.found('#[path = "../x.rs"]\nmod x;', style.RUST)), 1)

    def test_words(self):
        for good in ("there is no server", "it is no longer there", "they would do so anyway", "so long as"):
            self.assertEqual(self.found(good, style.WORDS), [], good)
        for bad in ("`x` is no device", "the reason is none", "a size that would do", "so many bytes", "begin anew"):
            self.assertEqual(len(self.found(bad, style.WORDS)), 1, bad)


class Markdown(unittest.TestCase):
    def found(self, text):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "a.md")
            path.write_text(text)
            return [complaint for _, complaint in [*markdown.links(path), *markdown.form(path)]]

    def test_links(self):
        self.assertEqual(self.found("# The `One`, two\n\n[a](#the-one-two) [b](a.md#the-one-two) [c](https://x.y/#z)\n"), [])
        self.assertEqual(self.found("`[a](b.md)`\n\n```\n[a](b.md)\n```\n"), [])
        self.assertEqual(self.found("[a](b.md)\n"), ["`b.md` does not exist"])
        self.assertEqual(len(self.found("# One\n\n[a](#two)\n")), 1)

    def test_form(self):
        long = "word " * 30
        self.assertEqual(self.found(f"# A\n\n| {long}|\n\n```\n{long}\n```\n\n- {'x' * 200}\n"), [])
        self.assertEqual(len(self.found(f"{long}end\n")), 1)
        self.assertEqual(len(self.found("a\n## B\n")), 1)
        self.assertEqual(len(self.found("| a | b |\n|---|---|\n| a |\n")), 1)


if __name__ == "__main__":
    unittest.main()

"""What `cycles.py` calls a circle, on small made-up crates."""

import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from cycles import Crate, circles


def found(files):
    """The circles of a crate with these files."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            path = Path(folder, "src", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return {frozenset("::".join(module) for module in circle) for circle in circles(Crate(Path(folder)).edges())}


class Circles(unittest.TestCase):
    def test_files_that_use_each_other(self):
        self.assertEqual(
            found({"lib.rs": "mod a;\nmod b;", "a.rs": "use crate::b::{self, B};", "b.rs": "fn f() { crate::a::g() }"}),
            {frozenset({"a", "b"})},
        )

    def test_a_longer_way_round(self):
        files = {"lib.rs": "mod a; mod b; mod c;", "a.rs": "use super::b::X;", "b/mod.rs": "use super::c::{Y};"}
        self.assertEqual(found({**files, "c.rs": "use crate::{a::Z};"}), {frozenset({"a", "b", "c"})})
        self.assertEqual(found({**files, "c.rs": "use std::fmt;"}), set())

    def test_a_module_and_its_child(self):
        child = {"lib.rs": "mod a;", "a/b.rs": "use super::A;\npub(crate) struct B(A);"}
        self.assertEqual(found({**child, "a/mod.rs": "mod b;\npub(crate) struct A;"}), set())
        self.assertEqual(found({**child, "a/mod.rs": "mod b;\nuse b::B;\npub(crate) struct A;"}), {frozenset({"a", "a::b"})})
        self.assertEqual(found({**child, "a/mod.rs": "mod b;\nstruct A;\nfn f() { b::f() }"}), {frozenset({"a", "a::b"})})

    def test_a_re_export_is_not_a_use_until_it_is_needed(self):
        files = {"lib.rs": "mod a;", "a/b.rs": "use super::A;\npub struct B(A);"}
        self.assertEqual(found({**files, "a/mod.rs": "mod b;\npub use b::B;\npub struct A;"}), set())
        self.assertEqual(found({**files, "a/mod.rs": "mod b;\npub use b::B;\npub struct A(B);"}), {frozenset({"a", "a::b"})})

    def test_a_re_exported_name_is_that_of_its_file(self):
        files = {"lib.rs": "mod a; mod b;\npub use a::A;\npub use b::B;", "a.rs": "use crate::B;"}
        self.assertEqual(found({**files, "b.rs": "pub struct B;"}), set())
        self.assertEqual(found({**files, "b.rs": "pub struct B(crate::A);"}), {frozenset({"a", "b"})})

    def test_tests_comments_and_strings_do_not_count(self):
        files = {"lib.rs": "mod a; mod b;", "a.rs": "use crate::b::B;"}
        for text in (
            "#[cfg(test)]\nmod tests {\n    use crate::a::A;\n    fn f() { {} }\n}",
            "#[cfg(test)]\nmod tests;",
            "// crate::a::A\n/* use crate::a::A; */",
            'const B: &str = "crate::a::A \\" crate::a";',
        ):
            self.assertEqual(found({**files, "b.rs": text, "b/tests.rs": "use crate::a::A; use super::B;"}), set(), text)


if __name__ == "__main__":
    unittest.main()

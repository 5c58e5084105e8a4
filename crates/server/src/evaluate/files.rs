//! Which files are evaluated.

use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::Serialize;

/// Why a file or a folder is not evaluated.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Problem {
    pub(super) file: PathBuf,
    /// In words that follow the name of the file.
    pub(super) problem: String,
}

impl Problem {
    pub(super) fn new(file: &Path, problem: impl Into<String>) -> Self {
        Self { file: file.to_owned(), problem: problem.into() }
    }
}

impl Display for Problem {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.file.display(), self.problem)
    }
}

/// What the names of pictures end in.
const ENDS: [&str; 4] = ["jpeg", "jpg", "png", "webp"];

/// The files that are named, and the pictures of folders, by name.
pub(super) fn find(paths: &[PathBuf]) -> (Vec<PathBuf>, Vec<Problem>) {
    let (mut files, mut problems) = (Vec::new(), Vec::new());
    for path in paths {
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => match pictures(path) {
                Ok(found) if found.is_empty() => problems.push(Problem::new(path, "is a folder without pictures")),
                Ok(found) => files.extend(found),
                Err(error) => problems.push(Problem::new(path, format!("cannot be listed: {error}"))),
            },
            Ok(_) => files.push(path.clone()),
            Err(error) => problems.push(Problem::new(path, format!("cannot be read: {error}"))),
        }
    }
    (files, problems)
}

fn pictures(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut pictures = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is = |end: &&str| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(end));
        if ENDS.iter().any(is) && path.is_file() {
            pictures.push(path);
        }
    }
    pictures.sort();
    Ok(pictures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_listed_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["b.png", "a.PNG", "c.jpg", "d.webp", "notes.txt"] {
            fs::write(path(name), "").unwrap();
        }
        for name in ["empty", "e.png"] {
            fs::create_dir(path(name)).unwrap();
        }
        let (files, problems) = find(&[dir.path().to_owned(), path("notes.txt"), path("empty"), path("none")]);
        assert_eq!(files, [path("a.PNG"), path("b.png"), path("c.jpg"), path("d.webp"), path("notes.txt")]);
        let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(said[0], format!("`{}` is a folder without pictures", path("empty").display()));
        assert!(said[1].starts_with(&format!("`{}` cannot be read: ", path("none").display())), "{said:?}");
    }
}

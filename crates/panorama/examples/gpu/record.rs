//! Where measurements go.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;

/// Lines of JSON: on stdout, and in a file.
pub(crate) struct Records(Option<RefCell<File>>);

impl Records {
    pub(crate) fn to(path: Option<PathBuf>) -> Result<Self> {
        let open = |path: PathBuf| {
            let file = OpenOptions::new().create(true).append(true).open(&path);
            file.with_context(|| format!("cannot write to `{}`", path.display()))
        };
        Ok(Self(path.map(open).transpose()?.map(RefCell::new)))
    }

    /// Written at once: a run may be cut off.
    pub(crate) fn add(&self, record: &Value) -> Result<()> {
        println!("{record}");
        if let Some(file) = &self.0 {
            writeln!(file.borrow_mut(), "{record}").context("cannot write to the file of `--json`")?;
        }
        Ok(())
    }
}

//! The files of a model: in a folder, in a single file, or in the program itself.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::bytes::{Bytes, map};
use super::error::{Error, Result};
use super::lora::Lora;
use super::missing;
use super::single_file::{Said, SingleFile};
use crate::words::Words;

/// A model: in the diffusers folder layout, or in one file. Paths inside it are relative and use `/`.
///
/// Files on disk are mapped into memory while they are loaded, those of the text encoder for as long as it exists. They
/// must not be changed meanwhile: reading the map of a truncated file kills the process with SIGBUS. To replace a
/// model, rename its files or folder; open maps keep the old content.
#[derive(Clone, Debug)]
pub struct Bundle {
    source: Source,
    /// A folder with the perceptual network, for models that have none.
    perceptual: Option<PathBuf>,
    loras: Vec<Arc<Lora>>,
    words: Words,
    /// Whether only names and shapes of tensors count.
    headers_only: bool,
    /// Weights that were found not to be finite, when they were loaded.
    damaged: Arc<Mutex<BTreeSet<String>>>,
}

/// Where the files of a model come from.
#[derive(Clone, Debug)]
enum Source {
    /// A folder on disk.
    Folder(PathBuf),
    /// Files compiled into the program, as pairs of path and content.
    Embedded(&'static [(&'static str, &'static [u8])]),
    /// A single file on disk, seen as the folder it would be.
    File(Arc<SingleFile>),
}

impl Bundle {
    /// A folder on disk, or a checkpoint in one file of safetensors.
    ///
    /// # Errors
    /// If it is neither.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        Self::open_with(path, Said::default())
    }

    /// The same, where something is said of a checkpoint in one file that its tensors do not tell.
    ///
    /// # Errors
    /// If it is neither, or if something is said of a folder.
    pub fn open_with(path: impl Into<PathBuf>, said: Said) -> Result<Self> {
        let path = path.into();
        let found = std::fs::metadata(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
        if found.is_file() {
            let beside = path.with_file_name(PERCEPTUAL);
            let bundle = Self::of(Source::File(Arc::new(SingleFile::open(path, said)?)));
            return Ok(if beside.is_dir() { bundle.with_perceptual(beside) } else { bundle });
        }
        if !found.is_dir() {
            return Err(Error::Io { path, source: io::Error::other("it is neither a folder nor a file") });
        }
        if let Some(key) = said.first() {
            let file = path.display().to_string();
            let problem = format!("is a folder, whose configuration says what `{key}` would say; change it there");
            return Err(Error::File { file, problem });
        }
        Ok(Self::of(Source::Folder(path)))
    }

    /// Files compiled into the program, as pairs of path and content.
    pub fn embedded(files: &'static [(&'static str, &'static [u8])]) -> Self {
        Self::of(Source::Embedded(files))
    }

    fn of(source: Source) -> Self {
        Self {
            source,
            perceptual: None,
            loras: Vec::new(),
            words: Words::default(),
            headers_only: false,
            damaged: Arc::default(),
        }
    }

    /// The demo model.
    #[cfg(test)]
    pub(crate) fn demo() -> Self {
        Self::open(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/demo")).expect("it is in the repository")
    }

    /// Takes the perceptual network from a folder where the model itself has none.
    #[must_use]
    pub fn with_perceptual(mut self, folder: PathBuf) -> Self {
        self.perceptual.get_or_insert(folder);
        self
    }

    /// Adds a LoRA to its weights, `weight` times, when they are loaded.
    ///
    /// # Errors
    /// If the file cannot be read or is not a LoRA.
    pub fn with_lora(mut self, file: PathBuf, weight: f64) -> Result<Self> {
        self.loras.push(Arc::new(Lora::open(file, weight)?));
        Ok(self)
    }

    /// Chooses how texts are cut into words.
    #[must_use]
    pub fn with_words(mut self, words: Words) -> Self {
        self.words = words;
        self
    }

    /// The same, with weights that are not read: enough to see whether it can be loaded.
    pub(crate) fn headers_only(&self) -> Self {
        Self { headers_only: true, ..self.clone() }
    }

    pub(crate) fn is_headers_only(&self) -> bool {
        self.headers_only
    }

    /// Notes that a weight holds numbers that are not finite.
    pub(crate) fn note_damage(damaged: &Mutex<BTreeSet<String>>, weight: String) {
        damaged.lock().unwrap_or_else(PoisonError::into_inner).insert(weight);
    }

    pub(crate) fn damaged(&self) -> &Arc<Mutex<BTreeSet<String>>> {
        &self.damaged
    }

    /// How texts are cut into words.
    pub(crate) fn words(&self) -> Words {
        self.words
    }

    pub(crate) fn loras(&self) -> &[Arc<Lora>] {
        &self.loras
    }

    /// The single file that it is, if it is one.
    pub(crate) fn single(&self) -> Option<&SingleFile> {
        match &self.source {
            Source::File(file) => Some(file),
            _ => None,
        }
    }

    /// The folder that it is, if it is one.
    pub(crate) fn folder(&self) -> Option<&Path> {
        match &self.source {
            Source::Folder(folder) => Some(folder),
            _ => None,
        }
    }

    /// Refuses what says itself that it is of another family of models.
    pub(crate) fn check_family(&self) -> Result<()> {
        self.folder().and_then(missing::family).map_or(Ok(()), |why| Err(Error::Foreign(why)))
    }

    /// The names of the files in a folder of the model; none if there is no such folder.
    pub(crate) fn names(&self, part: &str) -> Result<BTreeSet<String>> {
        let names = match &self.source {
            Source::Embedded(files) => {
                let inside = files.iter().filter_map(|(path, _)| path.strip_prefix(part)?.strip_prefix('/'));
                inside.map(str::to_owned).collect()
            }
            Source::Folder(folder) => names(&folder.join(part))?,
            Source::File(_) => BTreeSet::new(),
        };
        match &self.perceptual {
            Some(folder) if part == PERCEPTUAL && names.is_empty() => self::names(folder),
            _ => Ok(names),
        }
    }

    /// The content of a file, or `None` if it does not exist.
    pub(crate) fn find(&self, path: &str) -> Result<Option<Bytes>> {
        let found = match &self.source {
            Source::Embedded(files) => {
                files.iter().find(|(name, _)| *name == path).map(|(_, bytes)| Bytes::Static(bytes))
            }
            Source::Folder(folder) => read(&folder.join(path), path)?,
            Source::File(file) => file.config(path)?.map(Bytes::Owned),
        };
        let inside = path.strip_prefix(PERCEPTUAL).and_then(|rest| rest.strip_prefix('/'));
        match (found, &self.perceptual, inside) {
            (None, Some(folder), Some(inside)) => read(&folder.join(inside), path),
            (found, ..) => Ok(found),
        }
    }

    /// Where a file that [`Self::find`] finds lies on disk, if it does.
    pub(crate) fn place(&self, path: &str) -> Option<PathBuf> {
        let own = self.folder().map(|folder| folder.join(path));
        let inside = path.strip_prefix(PERCEPTUAL).and_then(|rest| rest.strip_prefix('/'));
        let other = self.perceptual.as_ref().zip(inside).map(|(folder, inside)| folder.join(inside));
        own.into_iter().chain(other).find(|path| path.is_file())
    }

    /// The content of a file that has to exist.
    pub(crate) fn read(&self, path: &str) -> Result<Bytes> {
        self.find(path)?.ok_or_else(|| missing::explain(self.folder(), self.single().map(SingleFile::path), path))
    }
}

/// The folder of the perceptual network.
const PERCEPTUAL: &str = "perceptual";

/// The names in a folder; none if there is no such folder.
fn names(folder: &Path) -> Result<BTreeSet<String>> {
    let failed = |source| Error::Io { path: folder.to_owned(), source };
    match std::fs::read_dir(folder) {
        Ok(entries) => {
            entries.map(|entry| Ok(entry.map_err(failed)?.file_name().to_string_lossy().into_owned())).collect()
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(BTreeSet::new())
        }
        Err(error) => Err(failed(error)),
    }
}

/// The content of a file on disk, or `None` if it does not exist. In messages it is called `name`.
fn read(path: &Path, name: &str) -> Result<Option<Bytes>> {
    match map(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match std::fs::read_link(path) {
            Ok(to) => {
                let problem = format!("is a link to `{}`, which is not there; fetch the model again", to.display());
                Err(Error::File { file: name.to_owned(), problem })
            }
            Err(_) => Ok(None),
        },
        Err(source) => Err(Error::Io { path: path.to_owned(), source }),
    }
}

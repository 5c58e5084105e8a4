//! Where bundles are, and which one a name refers to.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::layout::{LOCK, WORK};
use crate::{given, local};

/// The name of the model that is built into the program.
const DEMO: &str = "demo";

/// The folder of the program's own files: models lie under `models/` in it.
#[derive(Clone, Debug, Default)]
pub struct Home(Option<PathBuf>);

impl Home {
    /// `home` (`SYNCDIFFUSION_HOME`), or `syncdiffusion` under `data` (`XDG_DATA_HOME`), or under `.local/share` of
    /// `user` (`HOME`).
    pub fn new(home: Option<PathBuf>, data: Option<PathBuf>, user: Option<PathBuf>) -> Self {
        let named = |path: &PathBuf| !path.as_os_str().is_empty();
        // The specification of XDG has relative paths ignored.
        let data = data.filter(|path| path.is_absolute());
        let user = user.filter(named).map(|user| user.join(".local/share"));
        Self(home.filter(named).or_else(|| data.or(user).map(|data| data.join("syncdiffusion"))))
    }

    /// The default folder of a bundle.
    ///
    /// # Errors
    /// If the name is not valid, or the environment names no folder.
    pub fn bundle(&self, name: &str) -> Result<PathBuf> {
        let wrong = |why: &str| Error::Name { name: name.to_owned(), why: why.to_owned() };
        if name == DEMO {
            return Err(wrong("it is the model that is built into the program"));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
            return Err(wrong("a name consists of letters, digits, `-`, `_` and `.`"));
        }
        Ok(self.0.as_ref().ok_or(Error::Homeless)?.join("models").join(name))
    }

    /// What a worker loads for `--model MODEL`: `demo`, the folder of a bundle of that name, or the folder itself.
    /// A bundle goes before a folder of the same name; `./NAME` is always the folder.
    ///
    /// # Errors
    /// If it is nothing of this, or an incomplete bundle; the message says what to do.
    pub fn resolve(&self, model: &str) -> Result<String> {
        if model == DEMO {
            return Ok(model.to_owned());
        }
        let missing = |why: String| Error::NoModel { name: model.to_owned(), why };
        let from = if model == "sd2" { "" } else { " --from OWNER/REPOSITORY" };
        let again = format!("`syncdiffusion weights fetch {model}{from}`");
        let folder = Path::new(model);
        let bundle = self.bundle(model);
        if let Ok(bundle) = &bundle {
            if bundle.join(LOCK).is_file() {
                return bundle.to_str().map(str::to_owned).ok_or_else(|| missing("its folder is not UTF-8".to_owned()));
            }
            if bundle.join(WORK).is_dir() && !folder.is_dir() {
                return Err(missing(format!("its fetch was interrupted; {again} resumes it")));
            }
        }
        if folder.is_dir() && folder.join(WORK).is_dir() && !folder.join(LOCK).is_file() {
            let why = "its fetch into this folder was interrupted; the same `syncdiffusion weights fetch` resumes it";
            return Err(missing(why.to_owned()));
        }
        let given = given::path(model);
        match (given, bundle) {
            (Ok(path), _) => {
                path.to_str().map(str::to_owned).ok_or_else(|| missing("its path is not UTF-8".to_owned()))
            }
            (Err(_), Ok(bundle)) if !given::names_a_file(model) => Err(missing(format!(
                "it is neither `{DEMO}` nor a folder, and nothing was fetched to `{}`; {again} fetches it, `--model {DEMO}` \
                 needs no weights",
                bundle.display()
            ))),
            (Err(why), _) => Err(missing(why)),
        }
    }

    /// The folder with a perceptual network for models that have none, if there is one.
    pub fn perceptual(&self) -> Option<PathBuf> {
        let home = self.0.as_ref()?;
        let folders = [home.clone(), home.join("models").join("sd2")];
        folders.into_iter().find(|folder| local::has_perceptual(folder)).map(|folder| folder.join("perceptual"))
    }

    /// The folder in which a perceptual network for all models is kept.
    ///
    /// # Errors
    /// If the environment names no folder.
    pub fn shared(&self) -> Result<PathBuf> {
        self.0.clone().ok_or(Error::Homeless)
    }

    /// The file that remembers hashes of weights.
    pub fn hashes(&self) -> Option<PathBuf> {
        Some(self.0.as_ref()?.join("hashes.json"))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_home_follows_the_environment() {
        let path = |text: &str| Some(PathBuf::from(text));
        let of = |a, b, c| Home::new(a, b, c).bundle("sd2").ok();
        assert_eq!(of(path("/h"), path("/d"), path("/u")), path("/h/models/sd2"));
        assert_eq!(of(None, path("/d"), path("/u")), path("/d/syncdiffusion/models/sd2"));
        assert_eq!(of(path(""), path("d"), path("/u")), path("/u/.local/share/syncdiffusion/models/sd2"));
        assert!(matches!(Home::default().bundle("sd2"), Err(Error::Homeless)));
        for bad in ["", "..", "a/b", ".a", "demo", "a b"] {
            assert!(matches!(Home::new(path("/h"), None, None).bundle(bad), Err(Error::Name { .. })), "{bad}");
        }
    }

    #[test]
    fn a_name_is_the_demo_a_bundle_or_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(Some(dir.path().into()), None, None);
        let error = |model: &str| home.resolve(model).unwrap_err().to_string();
        assert_eq!(home.resolve("demo").unwrap(), "demo");
        assert_eq!(Home::default().resolve("/").unwrap(), "/");
        assert!(error("sd2").contains("`syncdiffusion weights fetch sd2`"), "{}", error("sd2"));
        assert!(error("other").contains("`syncdiffusion weights fetch other --from OWNER/REPOSITORY`"));
        assert!(error("./no/folder").contains("no such folder"));
        let bundle = dir.path().join("models/sd2");
        fs::create_dir_all(bundle.join(WORK)).unwrap();
        assert!(error("sd2").contains("interrupted"));
        assert!(error(bundle.to_str().unwrap()).contains("interrupted"));
        fs::write(bundle.join(LOCK), "{}").unwrap();
        assert_eq!(home.resolve("sd2").unwrap(), bundle.to_str().unwrap());
    }
}

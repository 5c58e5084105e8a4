//! The pages for people, embedded as the files that they are: no build, and nothing that is fetched from elsewhere.
//!
//! Modules and styles are below a path with the hash of them all, so browsers keep them for ever; an update has another
//! path. All addresses are relative, so the pages work under any prefix.

use std::fmt::Write as _;
use std::sync::LazyLock;

use sha2::{Digest as _, Sha256};

/// A file that pages load.
#[derive(Debug)]
pub(crate) struct File {
    /// Its name, the last part of its path.
    pub(crate) name: &'static str,
    /// Its contents.
    text: &'static str,
    /// What is served of them: neither indentation nor lines of comments.
    served: LazyLock<String>,
}

macro_rules! files {
    ($($name:literal),* $(,)?) => { [$(File {
        name: $name,
        text: include_str!($name),
        served: LazyLock::new(|| bare(include_str!($name))),
    }),*] };
}

/// Everything that pages load.
pub(crate) static FILES: [File; 36] = files![
    "api.js",
    "base.css",
    "code.js",
    "compare.js",
    "controls.js",
    "cylinder.js",
    "diagram.js",
    "docs.css",
    "docs.js",
    "dom.js",
    "drop.js",
    "form.css",
    "form.js",
    "history.js",
    "icon.svg",
    "jobs.js",
    "keys.js",
    "main.js",
    "metadata.js",
    "notify.js",
    "page.css",
    "pictures.js",
    "placement.js",
    "queue.js",
    "result.css",
    "save.js",
    "schema.js",
    "signal.js",
    "stage.js",
    "status.js",
    "toast.js",
    "view.css",
    "view.js",
    "viewer.js",
    "welcome.js",
    "words.js",
];

/// The page with the form and the history.
pub(crate) static PLAYGROUND: LazyLock<String> = LazyLock::new(|| page(include_str!("index.html"), "main.js"));
/// The reference of the API.
pub(crate) static DOCS: LazyLock<String> = LazyLock::new(|| page(include_str!("docs.html"), "docs.js"));
/// The page of one picture.
pub(crate) static VIEW: LazyLock<String> = LazyLock::new(|| page(include_str!("view.html"), "view.js"));

/// What distinguishes these files from those of other versions.
pub(crate) static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut hash = Sha256::new();
    for file in &FILES {
        hash.update(file.name);
        hash.update(file.text);
    }
    hash.finalize().iter().take(4).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
});

impl File {
    /// The file of a name.
    pub(crate) fn find(name: &str) -> Option<&'static Self> {
        FILES.iter().find(|file| file.name == name)
    }

    /// What is served.
    pub(crate) fn text(&self) -> &str {
        &self.served
    }

    /// Its media type.
    pub(crate) fn kind(&self) -> &'static str {
        match self.name.rsplit_once('.').map(|(_, end)| end) {
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("svg") => "image/svg+xml",
            _ => "text/plain; charset=utf-8",
        }
    }

    /// Names of the modules that it imports.
    fn imports(&self) -> impl Iterator<Item = &'static str> {
        self.text.split("from \"./").skip(1).filter_map(|rest| rest.split('"').next())
    }
}

/// A module or a style without indentation (by tabs; in a text it is by blanks) and without lines of comments.
fn bare(text: &str) -> String {
    let mut in_comment = false;
    let mut bare = String::with_capacity(text.len());
    for line in text.lines().map(|line| line.trim_start_matches('\t')) {
        let begins = line.starts_with("/*") && (line.ends_with("*/") || !line.contains("*/"));
        if begins || in_comment {
            in_comment = !line.ends_with("*/");
        } else if !line.is_empty() && !line.starts_with("//") {
            bare.push_str(line);
            bare.push('\n');
        }
    }
    bare
}

/// A page with the path of its files, which asks for all of its modules at once: otherwise a browser sees that one is
/// needed only when it has read another.
fn page(html: &str, entry: &'static str) -> String {
    let mut modules = vec![entry];
    let mut at = 0;
    while let Some(file) = modules.get(at).and_then(|name| File::find(name)) {
        at += 1;
        for name in file.imports() {
            if !modules.contains(&name) {
                modules.push(name);
            }
        }
    }
    let base = html.split("src=\"").nth(1).and_then(|rest| rest.split("page/").next()).unwrap_or_default();
    let mut links = String::new();
    for name in modules.iter().skip(1) {
        let _ = writeln!(links, "<link rel=\"modulepreload\" href=\"{base}page/{{version}}/{name}\" />");
    }
    html.replacen("</head>", &format!("{links}</head>"), 1).replace("{version}", &VERSION)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// The bytes of what a page loads at most, without pictures and answers.
    const MAX_BYTES: usize = 150_000;

    #[test]
    fn every_file_of_the_folder_is_served() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/page");
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            let ending = name.rsplit('.').next();
            if ending == Some("rs") || ending == Some("ts") {
                continue;
            }
            assert!(ending == Some("html") || File::find(&name).is_some(), "`{name}` is not in the table");
        }
    }

    #[test]
    fn pages_ask_for_every_module_that_they_need() {
        for (page, entry) in [(&PLAYGROUND, "main.js"), (&DOCS, "docs.js"), (&VIEW, "view.js")] {
            assert!(page.contains(&format!("page/{}/{entry}\"></script>", &**VERSION)), "{}", &**page);
            assert!(!page.contains("{version}"), "{}", &**page);
            let prefix = format!("page/{}/", &**VERSION);
            let names = page.split(&prefix).skip(1).filter_map(|rest| rest.split('"').next());
            let files: Vec<&File> = names.map(|name| File::find(name).unwrap_or_else(|| panic!("{name}"))).collect();
            let bytes = page.len() + files.iter().map(|file| file.text().len()).sum::<usize>();
            assert!(bytes <= MAX_BYTES, "{entry}: {bytes} bytes");
        }
        for file in &FILES {
            for name in file.imports() {
                assert!(File::find(name).is_some(), "`{}` imports `{name}`", file.name);
            }
        }
        assert!(PLAYGROUND.contains(&format!("href=\"page/{}/viewer.js\"", &**VERSION)));
        assert!(VIEW.contains(&format!("href=\"../page/{}/cylinder.js\"", &**VERSION)));
        assert!(!VIEW.contains("history.js"), "a page loads what it needs only");
    }
}

//! What can be checked without a worker: model, disk, port, access, files.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use indicatif::HumanBytes;
use prediction::store::{Finding, Inspected, inspect, inspect_database, inspect_pictures};

use super::report::Check;
use crate::config::Serve;
use crate::connections::{self, is_public, listen};

/// Free space below which the store will soon be full: some hundred pictures.
const LITTLE_SPACE: u64 = 1 << 30;

/// The model, and the bytes of its weights.
pub(super) fn model(serve: &mut Serve) -> (Check, u64) {
    const NAME: &str = "model";
    let named = serve.worker.model.clone();
    if let Err(error) = serve.worker.resolve() {
        return (Check::problem(NAME, error.to_string(), "fetch the model, or choose another one with `--model`"), 0);
    }
    if serve.worker.model == "demo" {
        return (Check::ok(NAME, "`demo`, which is built in"), 0);
    }
    let weights::Inspection { bytes, problems } = weights::inspect(Path::new(&serve.worker.model));
    let folder = &serve.worker.model;
    let check = if problems.is_empty() {
        Check::ok(NAME, format!("`{folder}`, weights of {}", HumanBytes(bytes)))
    } else {
        let advice = format!(
            "`syncdiffusion weights verify {named}` checks every byte, `syncdiffusion weights fetch {named}` repairs it"
        );
        Check::problem(NAME, format!("`{folder}`: {}", problems.join("; ")), advice)
    };
    (check, bytes)
}

/// The folder for predictions and pictures.
pub(super) fn data(serve: &Serve) -> Check {
    const NAME: &str = "data";
    if let Some(url) = &serve.database {
        return match inspect_database(url.reveal()) {
            Err(error) => Check::problem(NAME, error.to_string(), "correct `--database`, or the server that it names"),
            Ok(Inspected { found, warnings }) if warnings.is_empty() => Check::ok(NAME, found),
            Ok(Inspected { warnings, .. }) => Check::warning(
                NAME,
                warnings.join("; "),
                "set `fsync`, `synchronous_commit` and `full_page_writes` to `on` in the server's settings",
            ),
        };
    }
    if serve.in_memory() {
        let found = "predictions are kept in memory and are lost when the server stops";
        return Check::warning(NAME, found, "name a folder with `--data-dir` to keep them");
    }
    let dir = &serve.data_dir;
    let shown = dir.display();
    // One that does not exist yet will be made inside one that does.
    let existing = dir.ancestors().map(|dir| if dir.as_os_str().is_empty() { Path::new(".") } else { dir });
    let Some(existing) = existing.into_iter().find(|dir| dir.exists()) else {
        return Check::problem(NAME, format!("`{shown}` cannot be made"), "choose another folder with `--data-dir`");
    };
    if let Err(error) = try_writing(existing) {
        let found = format!("`{}` cannot be written: {error}", existing.display());
        let advice = "make it writable for this user, or choose another folder with `--data-dir`";
        return Check::problem(NAME, found, advice);
    }
    if let Some(Finding { is_problem, found, advice }) = inspect(dir) {
        let check = if is_problem { Check::problem } else { Check::warning };
        return check(NAME, found, advice);
    }
    match weights::free_space(existing) {
        Err(error) => Check::warning(NAME, format!("`{shown}`: {error}"), "check its disk"),
        Ok(free) if free < LITTLE_SPACE => Check::warning(
            NAME,
            format!("`{shown}` has {} left", HumanBytes(free)),
            "make room, or limit what is kept with `--keep`, `--keep-count` or `--keep-bytes`",
        ),
        Ok(free) => Check::ok(NAME, format!("`{shown}`, {} left", HumanBytes(free))),
    }
}

/// The bucket for the pictures of a database, if there is one.
pub(super) fn pictures(serve: &Serve) -> Option<Check> {
    const NAME: &str = "pictures";
    let database = serve.database.as_ref()?;
    match inspect_pictures(database.reveal(), serve.pictures.as_deref(), serve.outputs.access()) {
        Ok(found) => found.map(|Inspected { found, warnings }| {
            if warnings.is_empty() {
                Check::ok(NAME, found)
            } else {
                Check::warning(NAME, warnings.join("; "), "see the section on backups in docs/fleet.md")
            }
        }),
        // Without a database there is nothing to say of its pictures, and `data` says why there is none.
        Err(_) if inspect_database(database.reveal()).is_err() => None,
        Err(error) => Some(Check::problem(
            NAME,
            error.to_string(),
            "correct `--pictures`, `--s3-endpoint` and the variables `AWS_*`, or the rights on the bucket",
        )),
    }
}

/// Writes a file and removes it.
fn try_writing(dir: &Path) -> std::io::Result<()> {
    let path = dir.join(format!(".syncdiffusion-doctor-{}", std::process::id()));
    let written = OpenOptions::new().write(true).create_new(true).open(&path).and_then(|mut file| file.write_all(b"x"));
    let removed = fs::remove_file(&path);
    written.and(removed)
}

/// Whether the port is free.
pub(super) fn port(serve: &Serve) -> Check {
    const NAME: &str = "port";
    let address = serve.address();
    match listen(address) {
        Ok(_) => Check::ok(NAME, format!("`{address}` is free")),
        Err(error) => Check::problem(
            NAME,
            format!("cannot listen on `{address}`: {error}"),
            "stop what listens there, or choose another `--port` or `--host`",
        ),
    }
}

/// Who may use the server.
pub(super) fn access(serve: &Serve) -> Check {
    const NAME: &str = "access";
    let address = serve.address();
    match serve.access.tokens() {
        Err(error) => Check::problem(NAME, format!("{error:#}"), "correct `--api-token` or the file of tokens"),
        Ok(tokens) if !tokens.is_empty() => Check::ok(NAME, "requests need a token"),
        Ok(_) if is_public(address) => Check::warning(
            NAME,
            format!("everybody who can reach `{address}` may use the server"),
            "set `--api-token`, or `--host 127.0.0.1` for this machine only",
        ),
        Ok(_) => Check::ok(NAME, "only this machine can connect"),
    }
}

/// Whether the limit of open files is high enough.
pub(super) fn files(serve: &Serve) -> Check {
    const NAME: &str = "files";
    let (wanted, room) = (serve.limits.max_connections, connections::room(connections::open_files()));
    if room < wanted {
        let found = format!("the limit of open files leaves room for {room} connections, not {wanted}");
        return Check::warning(NAME, found, "raise it with `ulimit -n`, or lower `--max-connections`");
    }
    Check::ok(NAME, format!("room for {wanted} connections"))
}

//! What can be seen without a worker: model, disk, port, doors, files.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use indicatif::HumanBytes;

use super::Check;
use crate::config::Serve;
use crate::connections;
use crate::serve::{is_public, listen};

/// Free space below which the store will soon be full: some hundred pictures.
const LITTLE_SPACE: u64 = 1 << 30;

/// The model, and how many bytes its weights are.
pub(super) fn model(serve: &mut Serve) -> (Check, u64) {
    const NAME: &str = "model";
    let named = serve.crew.model.clone();
    if let Err(error) = serve.crew.resolve() {
        return (Check::problem(NAME, error.to_string(), "fetch the model, or name another one by `--model`"), 0);
    }
    if serve.crew.model == "demo" {
        return (Check::ok(NAME, "`demo`, which is built in"), 0);
    }
    let weights::Inspection { bytes, problems } = weights::inspect(Path::new(&serve.crew.model));
    let folder = &serve.crew.model;
    let check = if problems.is_empty() {
        Check::ok(NAME, format!("`{folder}`, weights of {}", HumanBytes(bytes)))
    } else {
        let advice = if named == *folder {
            "complete the folder; the README lists what belongs into it".to_owned()
        } else {
            format!(
                "`syncdiffusion weights verify {named}` reads every byte, `syncdiffusion weights fetch {named}` mends"
            )
        };
        Check::problem(NAME, format!("`{folder}`: {}", problems.join("; ")), advice)
    };
    (check, bytes)
}

/// The folder for predictions and pictures.
pub(super) fn data(serve: &Serve) -> Check {
    const NAME: &str = "data";
    if serve.in_memory() {
        let found = "predictions are kept in memory, and end with the server";
        return Check::warning(NAME, found, "name a folder by `--data-dir` to keep them");
    }
    let dir = &serve.data_dir;
    let shown = dir.display();
    // One that is not there yet will be made below one that is.
    let existing = dir.ancestors().map(|dir| if dir.as_os_str().is_empty() { Path::new(".") } else { dir });
    let Some(existing) = existing.into_iter().find(|dir| dir.exists()) else {
        return Check::problem(NAME, format!("`{shown}` cannot be made"), "name another folder by `--data-dir`");
    };
    if let Err(error) = try_writing(existing) {
        let found = format!("`{}` cannot be written: {error}", existing.display());
        return Check::problem(NAME, found, "make it writable for this user, or name another folder by `--data-dir`");
    }
    match free(existing) {
        Err(error) => Check::warning(NAME, format!("`{shown}`: {error}"), "see whether its disk is well"),
        Ok(free) if free < LITTLE_SPACE => Check::warning(
            NAME,
            format!("`{shown}` has {} left", HumanBytes(free)),
            "make room, or limit what is kept by `--keep`, `--keep-count` or `--keep-bytes`",
        ),
        Ok(free) => Check::ok(NAME, format!("`{shown}`, {} left", HumanBytes(free))),
    }
}

/// Writes a file and removes it.
fn try_writing(dir: &Path) -> std::io::Result<()> {
    let path = dir.join(format!(".syncdiffusion-doctor-{}", std::process::id()));
    let written = OpenOptions::new().write(true).create_new(true).open(&path).and_then(|mut file| file.write_all(b"x"));
    let removed = fs::remove_file(&path);
    written.and(removed)
}

/// Free bytes of the disk that a folder is on.
fn free(dir: &Path) -> std::io::Result<u64> {
    let found = rustix::fs::statvfs(dir)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Whether the port can be had.
pub(super) fn port(serve: &Serve) -> Check {
    const NAME: &str = "port";
    let address = SocketAddr::new(serve.host, serve.port);
    match listen(address) {
        Ok(_) => Check::ok(NAME, format!("`{address}` is free")),
        Err(error) => Check::problem(
            NAME,
            format!("cannot listen on `{address}`: {error}"),
            "stop what listens there, or choose another `--port` or `--host`",
        ),
    }
}

/// Who gets in.
pub(super) fn doors(serve: &Serve) -> Check {
    const NAME: &str = "doors";
    let address = SocketAddr::new(serve.host, serve.port);
    match serve.doors.tokens() {
        Err(error) => Check::problem(NAME, format!("{error:#}"), "mend the tokens"),
        Ok(tokens) if !tokens.is_empty() => Check::ok(NAME, "a token is needed"),
        Ok(_) if is_public(address) => Check::warning(
            NAME,
            format!("everybody who can reach `{address}` may use the server"),
            "set `--api-token`, or `--host 127.0.0.1` for this machine only",
        ),
        Ok(_) => Check::ok(NAME, "only this machine gets in"),
    }
}

/// How many connections there is room for.
pub(super) fn files(serve: &Serve) -> Check {
    const NAME: &str = "files";
    let (wanted, room) = (serve.doors.max_connections, connections::room(connections::open_files()));
    if room < wanted {
        let found = format!("the limit of open files leaves room for {room} connections, not {wanted}");
        return Check::warning(NAME, found, "raise it with `ulimit -n`, or lower `--max-connections`");
    }
    Check::ok(NAME, format!("room for {wanted} connections"))
}

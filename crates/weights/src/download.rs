//! One file: from the hub to its final name, by way of `NAME.part`.
//!
//! What always holds: bytes are hashed as they are written, on a thread of their own; only a content with the hash that
//! the hub lists gets the final name; what was received stays in `NAME.part` for the next attempt, unless it is wrong.

use std::fs::{File as Disk, OpenOptions};
use std::io::{Seek as _, Write as _};
use std::path::{Path, PathBuf};

use http_client::{Retries, reason};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::disk;
use crate::error::{Error, Result};
use crate::hash::{Hasher, Sums};
use crate::hub::{Failure, Hub, broken, wait};
use crate::plan::File;
use crate::progress::{Progress, ProgressEvent};

/// Pieces that may wait for the disk.
const MAX_WAITING: usize = 64;

/// Fetches a file into the bundle's folder.
///
/// # Errors
/// If it cannot be fetched, or is not the one that the hub lists.
pub(crate) async fn download(hub: &Hub, file: &File, dir: &Path, progress: &dyn Progress) -> Result<Sums> {
    let path = dir.join(&file.path);
    let part = disk::part(&path);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(Error::io(parent))?;
    }
    loop {
        let mut writer = Writer::open(&part, file).await?;
        progress.report(ProgressEvent::Begun { path: &file.path, size: file.size, have: writer.have });
        let filled = fill(hub, file, &mut writer, progress).await;
        let resumed = writer.resumed;
        let sums = writer.finish().await?;
        match filled {
            Ok(()) if file.origin.hash.fits(&sums) => {
                disk::persist(&part, &path)?;
                progress.report(ProgressEvent::Done { path: &file.path });
                return Ok(sums);
            }
            Ok(()) => {
                disk::remove(&part)?;
                if !resumed {
                    return Err(file.mismatch(sums.like(&file.origin.hash)));
                }
                progress.report(ProgressEvent::Note(&format!(
                    "what was kept of `{}` is wrong; fetching all of it again",
                    file.path
                )));
            }
            Err(error) => {
                if matches!(error, Error::TooLong { .. } | Error::Mismatch { .. }) {
                    disk::remove(&part)?;
                }
                return Err(error);
            }
        }
    }
}

/// Receives until the file is complete, over as many connections as it takes.
async fn fill(hub: &Hub, file: &File, writer: &mut Writer, progress: &dyn Progress) -> Result<()> {
    let mut retries = Retries::new(hub.retries);
    while writer.have < file.size {
        let before = writer.have;
        let failure = match receive(hub, file, writer, progress).await {
            Ok(()) if writer.have < file.size => broken(file, "the connection ended early".to_owned()),
            Ok(()) => break,
            Err(failure) => failure,
        };
        if writer.have > before {
            retries.reset();
        }
        wait(&mut retries, failure, progress).await?;
    }
    Ok(())
}

/// Receives over one connection.
async fn receive(hub: &Hub, file: &File, writer: &mut Writer, progress: &dyn Progress) -> Result<(), Failure> {
    let (mut response, partial) = hub.open(file, writer.have).await?;
    if !partial && writer.have > 0 {
        writer.restart().await?;
        progress.report(ProgressEvent::Begun { path: &file.path, size: file.size, have: 0 });
    }
    while let Some(bytes) = response.chunk().await.map_err(|e| broken(file, reason(e)))? {
        if writer.have + bytes.len() as u64 > file.size {
            return Err(Error::TooLong { at: file.at(file.host()).into(), expected: file.size }.into());
        }
        writer.write(bytes.into()).await?;
        progress.report(ProgressEvent::Received { path: &file.path, have: writer.have });
    }
    Ok(())
}

/// Writes and hashes on a thread of its own.
struct Writer {
    to: mpsc::Sender<Piece>,
    end: JoinHandle<Result<Sums>>,
    /// Bytes that were on the disk or were passed to the thread.
    have: u64,
    /// Whether some of them were on the disk.
    resumed: bool,
}

enum Piece {
    Bytes(Vec<u8>),
    /// What is there is wrong; the bytes that follow are the first.
    Restart,
}

impl Writer {
    /// Opens `NAME.part` and hashes what it holds.
    async fn open(part: &Path, file: &File) -> Result<Self> {
        let (to, pieces) = mpsc::channel(MAX_WAITING);
        let (begun, have) = oneshot::channel();
        let (part, file) = (part.to_owned(), file.clone());
        let end = spawn_blocking(move || write(&part, &file, begun, pieces));
        match have.await {
            Ok(have) => Ok(Self { to, end, have, resumed: have > 0 }),
            Err(_) => Err(ended(end.await)),
        }
    }

    async fn write(&mut self, bytes: Vec<u8>) -> Result<()> {
        self.have += bytes.len() as u64;
        self.pass(Piece::Bytes(bytes)).await
    }

    /// Drops all that was received.
    async fn restart(&mut self) -> Result<()> {
        (self.have, self.resumed) = (0, false);
        self.pass(Piece::Restart).await
    }

    async fn pass(&mut self, piece: Piece) -> Result<()> {
        match self.to.send(piece).await {
            Ok(()) => Ok(()),
            Err(_) => Err(ended((&mut self.end).await)),
        }
    }

    /// Waits until all is on the disk.
    async fn finish(self) -> Result<Sums> {
        drop(self.to);
        self.end.await.unwrap_or_else(|e| Err(ended(Err(e))))
    }
}

/// Why the thread ended early.
fn ended(how: Result<Result<Sums>, tokio::task::JoinError>) -> Error {
    match how {
        Ok(Err(error)) => error,
        Ok(Ok(_)) => Error::Client("the thread that writes has ended".to_owned()),
        Err(error) => Error::Client(format!("the thread that writes has failed: {error}")),
    }
}

fn write(part: &Path, file: &File, begun: oneshot::Sender<u64>, mut pieces: mpsc::Receiver<Piece>) -> Result<Sums> {
    let failed = || Error::io(PathBuf::from(part));
    let fresh = || Hasher::of(&file.origin.hash, file.size);
    let mut disk: Disk =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(part).map_err(failed())?;
    let mut have = disk.metadata().map_err(failed())?.len();
    if have > file.size {
        disk.set_len(0).map_err(failed())?;
        have = 0;
    }
    let mut hasher = fresh();
    hasher.read(&mut disk).map_err(failed())?;
    // The receiver is gone if the fetch was given up.
    _ = begun.send(have);
    while let Some(piece) = pieces.blocking_recv() {
        match piece {
            Piece::Bytes(bytes) => {
                disk.write_all(&bytes).map_err(failed())?;
                hasher.update(&bytes);
            }
            Piece::Restart => {
                disk.set_len(0).and_then(|()| disk.rewind()).map_err(failed())?;
                hasher = fresh();
            }
        }
    }
    disk.sync_all().map_err(failed())?;
    Ok(hasher.finish())
}

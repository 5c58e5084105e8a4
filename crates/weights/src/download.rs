//! One file: from the hub to its final name, by way of `NAME.part`.
//!
//! What always holds: bytes are hashed as they are written, on a thread of their own; the final name is given only to a
//! content with the hash that the hub told; what was received stays in `NAME.part` for the next attempt, unless it is wrong.

use std::fs::{File as Disk, OpenOptions};
use std::io::{Seek as _, Write as _};
use std::path::{Path, PathBuf};

use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::hash::{Hasher, Sums};
use crate::hub::{Failure, Hub, Tries, broken, why};
use crate::plan::File;
use crate::{Error, News, Progress, Result, disk};

/// Pieces that may wait for the disk.
const WAITING: usize = 64;

/// Fetches a file into the bundle's folder.
///
/// # Errors
/// If it cannot be fetched, or is another one than the hub told.
pub(crate) async fn download(hub: &Hub, file: &File, dir: &Path, progress: &dyn Progress) -> Result<Sums> {
    let path = dir.join(&file.path);
    let part = disk::part(&path);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(Error::io(parent))?;
    }
    loop {
        let mut writer = Writer::open(&part, file).await?;
        progress.tell(News::Begun { path: &file.path, size: file.size, have: writer.have });
        let filled = fill(hub, file, &mut writer, progress).await;
        let resumed = writer.resumed;
        let sums = writer.finish().await?;
        match filled {
            Ok(()) if file.origin.hash.fits(&sums) => {
                disk::settle(&part, &path)?;
                progress.tell(News::Done { path: &file.path });
                return Ok(sums);
            }
            Ok(()) => {
                disk::remove(&part)?;
                if !resumed {
                    return Err(file.mismatch(sums.like(&file.origin.hash)));
                }
                progress.tell(News::Note(&format!("what was kept of `{}` is wrong; it is fetched anew", file.path)));
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

/// Receives until all is there, over as many connections as it takes.
async fn fill(hub: &Hub, file: &File, writer: &mut Writer, progress: &dyn Progress) -> Result<()> {
    let mut tries = Tries::new(hub.patience);
    while writer.have < file.size {
        let before = writer.have;
        let failure = match receive(hub, file, writer, progress).await {
            Ok(()) if writer.have < file.size => broken(file, "the connection ended early".to_owned()),
            Ok(()) => break,
            Err(failure) => failure,
        };
        if writer.have > before {
            tries.reset();
        }
        tries.wait(failure, progress).await?;
    }
    Ok(())
}

/// Receives over one connection.
async fn receive(hub: &Hub, file: &File, writer: &mut Writer, progress: &dyn Progress) -> Result<(), Failure> {
    let (mut response, partial) = hub.open(file, writer.have).await?;
    if !partial && writer.have > 0 {
        writer.anew().await?;
        progress.tell(News::Begun { path: &file.path, size: file.size, have: 0 });
    }
    while let Some(bytes) = response.chunk().await.map_err(|e| broken(file, why(e)))? {
        if writer.have + bytes.len() as u64 > file.size {
            let (repo, name) = (file.origin.repo.clone(), file.origin.path.clone());
            return Err(Error::TooLong { repo, file: name, expected: file.size }.into());
        }
        writer.write(bytes.into()).await?;
        progress.tell(News::Received { path: &file.path, have: writer.have });
    }
    Ok(())
}

/// Writes and hashes on a thread of its own.
struct Writer {
    to: mpsc::Sender<Piece>,
    end: JoinHandle<Result<Sums>>,
    /// Bytes that were there or were given.
    have: u64,
    /// Whether some of them were there.
    resumed: bool,
}

enum Piece {
    Bytes(Vec<u8>),
    Anew,
}

impl Writer {
    /// Opens `NAME.part` and hashes what is there.
    async fn open(part: &Path, file: &File) -> Result<Self> {
        let (to, pieces) = mpsc::channel(WAITING);
        let (tell, there) = oneshot::channel();
        let (part, file) = (part.to_owned(), file.clone());
        let end = spawn_blocking(move || write(&part, &file, tell, pieces));
        match there.await {
            Ok(have) => Ok(Self { to, end, have, resumed: have > 0 }),
            Err(_) => Err(ended(end.await)),
        }
    }

    async fn write(&mut self, bytes: Vec<u8>) -> Result<()> {
        self.have += bytes.len() as u64;
        self.give(Piece::Bytes(bytes)).await
    }

    /// Forgets all that is there.
    async fn anew(&mut self) -> Result<()> {
        (self.have, self.resumed) = (0, false);
        self.give(Piece::Anew).await
    }

    async fn give(&mut self, piece: Piece) -> Result<()> {
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

/// Why the thread ended before it was told to.
fn ended(how: Result<Result<Sums>, tokio::task::JoinError>) -> Error {
    match how {
        Ok(Err(error)) => error,
        Ok(Ok(_)) => Error::Client("the thread that writes has ended".to_owned()),
        Err(error) => Error::Client(format!("the thread that writes has failed: {error}")),
    }
}

fn write(part: &Path, file: &File, tell: oneshot::Sender<u64>, mut pieces: mpsc::Receiver<Piece>) -> Result<Sums> {
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
    // Nobody listens any more where the fetch was given up meanwhile.
    _ = tell.send(have);
    while let Some(piece) = pieces.blocking_recv() {
        match piece {
            Piece::Bytes(bytes) => {
                disk.write_all(&bytes).map_err(failed())?;
                hasher.update(&bytes);
            }
            Piece::Anew => {
                disk.set_len(0).and_then(|()| disk.rewind()).map_err(failed())?;
                hasher = fresh();
            }
        }
    }
    disk.sync_all().map_err(failed())?;
    Ok(hasher.finish())
}

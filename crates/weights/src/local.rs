//! The perceptual network for a model that was not fetched here: no folder of diffusers has one.

use std::fs;
use std::path::Path;

use safetensors::SafeTensors;

use crate::download::download;
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::progress::Progress;
use crate::source::Source;
use crate::{disk, perceptual, plan};

/// VGG16 while it is being received.
const VGG: &str = ".vgg16.safetensors";

/// The folder of the network inside a model's.
const FOLDER: &str = "perceptual";

/// Whether a folder has the network.
pub fn has_perceptual(dir: &Path) -> bool {
    let folder = dir.join(FOLDER);
    folder.join("config.json").is_file() && folder.join("model.safetensors").is_file()
}

/// Adds the network to the folder of a model, from a hub.
///
/// # Errors
/// See [`Error`]. What was received is kept for the next call.
pub async fn fetch_perceptual(hub: &Hub, source: &Source, dir: &Path, progress: &dyn Progress) -> Result<()> {
    let vgg = plan::perceptual(&hub.listing(source, progress).await?, format!("{FOLDER}/{VGG}"))?;
    download(hub, &vgg, dir, progress).await?;
    let received = dir.join(FOLDER).join(VGG);
    write(dir, &perceptual::cut(&received)?)?;
    disk::remove(&received)
}

/// Adds the network to the folder of a model, from a file on disk: VGG16 with torchvision's names, or the network as it
/// is in another model.
///
/// # Errors
/// If the file is neither.
pub fn copy_perceptual(file: &Path, dir: &Path) -> Result<()> {
    let wrong = |why: String| Error::PerceptualFile { file: file.to_owned(), why };
    let bytes = fs::read(file).map_err(Error::io(file))?;
    if bytes.starts_with(b"PK\x03\x04") || bytes.first() == Some(&0x80) {
        return Err(wrong("it is a pickle of PyTorch, which can run code and is not read".to_owned()));
    }
    if bytes.starts_with(b"version https://git-lfs") {
        return Err(wrong("it is a pointer of Git LFS and not the file itself".to_owned()));
    }
    if let Ok(tensors) = SafeTensors::deserialize(&bytes)
        && tensors.tensor("lin0.weight").is_ok()
    {
        perceptual::check(&tensors).map_err(wrong)?;
        return write(dir, &bytes);
    }
    let network = perceptual::cut(file).map_err(|error| match error {
        Error::Perceptual(why) => wrong(why),
        other => other,
    })?;
    write(dir, &network)
}

/// Writes all files of the network.
fn write(dir: &Path, network: &[u8]) -> Result<()> {
    let folder = dir.join(FOLDER);
    fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    disk::write(&folder.join("LICENSE.lpips"), perceptual::LICENCE.as_bytes())?;
    disk::write(&folder.join("config.json"), perceptual::CONFIG.as_bytes())?;
    disk::write(&folder.join("model.safetensors"), network)
}

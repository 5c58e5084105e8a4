//! The perceptual network for a model that was not fetched here: from a hub, or from a file.

use std::fs;
use std::path::{Path, PathBuf};

use tests::hub::Fault;
use weights::{Source, copy_perceptual, fetch_perceptual, has_perceptual};

use crate::case::{Case, all_files};

/// What is written, whatever it was made of.
const WRITTEN: [&str; 3] = ["perceptual/LICENSE.lpips", "perceptual/config.json", "perceptual/model.safetensors"];

/// The folder of a model as diffusers saves it.
fn saved(case: &Case) -> PathBuf {
    let folder = case.dir.path().join("saved");
    fs::create_dir_all(folder.join("unet")).unwrap();
    fs::write(folder.join("unet/config.json"), "{}").unwrap();
    folder
}

async fn from_hub(case: &Case, folder: &Path) -> Result<(), weights::Error> {
    let source = Source::parse(weights::PERCEPTUAL, None).unwrap();
    fetch_perceptual(&case.client().unwrap(), &source, folder, &()).await
}

/// VGG16 as the hub has it.
fn vgg(case: &Case) -> Vec<u8> {
    case.hub.lock().repos[weights::PERCEPTUAL].1["model.safetensors"].to_vec()
}

/// The bytes of the files of the network.
fn network(folder: &Path) -> [Vec<u8>; 3] {
    WRITTEN.map(|file| fs::read(folder.join(file)).unwrap())
}

#[tokio::test]
async fn a_folder_gets_from_the_hub_what_a_fetched_model_has() {
    let case = Case::new().await;
    case.fetch().await.unwrap();
    let folder = saved(&case);
    assert!(!has_perceptual(&folder));
    from_hub(&case, &folder).await.unwrap();
    assert!(has_perceptual(&folder));
    assert_eq!(all_files(&folder), [&WRITTEN[..], &["unet/config.json"]].concat());
    assert!(network(&folder) == network(&case.request.dir));
}

#[tokio::test]
async fn an_interrupted_network_is_resumed() {
    let case = Case::new().await;
    let folder = saved(&case);
    case.hub.fail("model.safetensors", &[Fault::Drop(9_000_000), Fault::Drop(0), Fault::Drop(0), Fault::Drop(0)]);
    let message = from_hub(&case, &folder).await.unwrap_err().to_string();
    assert!(message.contains("what was received is kept"), "{message}");
    assert!(!has_perceptual(&folder), "half a network does not count");
    case.hub.calm();
    from_hub(&case, &folder).await.unwrap();
    assert_eq!(case.hub.offsets("model.safetensors"), [9_000_000]);
    assert_eq!(all_files(&folder), [&WRITTEN[..], &["unet/config.json"]].concat());
}

#[tokio::test]
async fn a_file_is_as_good_as_a_hub() {
    let case = Case::new().await;
    let from_hub_folder = case.dir.path().join("hub");
    from_hub(&case, &from_hub_folder).await.unwrap();
    case.hub.calm();
    let folder = saved(&case);
    let file = case.dir.path().join("vgg16.safetensors");
    fs::write(&file, vgg(&case)).unwrap();
    // VGG16 itself, and the network of another model.
    for file in [file, from_hub_folder.join("perceptual/model.safetensors")] {
        copy_perceptual(&file, &folder).unwrap();
        assert_eq!(all_files(&folder), [&WRITTEN[..], &["unet/config.json"]].concat());
        assert!(network(&folder) == network(&from_hub_folder), "{}", file.display());
        fs::remove_dir_all(folder.join("perceptual")).unwrap();
    }
    assert_eq!(case.hub.lock().hub, [], "no hub was asked");
}

#[tokio::test]
async fn a_file_of_another_kind_is_named_and_nothing_is_written() {
    let case = Case::new().await;
    let folder = saved(&case);
    let file = case.dir.path().join("given");
    // Its channels are an eighth.
    let demo =
        fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/demo/perceptual/model.safetensors")).unwrap();
    for (bytes, says) in [
        (&b"PK\x03\x04rest"[..], "pickle of PyTorch"),
        (b"\x80\x02}", "pickle of PyTorch"),
        (b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS"),
        (b"short", "too short"),
        (&demo, "`lin0.weight` has the shape [1, 8, 1, 1], not [1, 64, 1, 1]"),
        (&vgg(&case)[..1_000_000], "outside the file"),
    ] {
        fs::write(&file, bytes).unwrap();
        let message = copy_perceptual(&file, &folder).unwrap_err().to_string();
        assert!(message.starts_with(&format!("`{}` cannot be used: ", file.display())), "{message}");
        assert!(message.contains(says) && message.contains("timm/vgg16.tv_in1k"), "{message}");
        assert_eq!(all_files(&folder), ["unet/config.json"]);
    }
    assert!(copy_perceptual(Path::new("no/such/file"), &folder).unwrap_err().to_string().contains("no/such/file"));
}

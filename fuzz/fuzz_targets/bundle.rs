//! Loading a bundle with arbitrary contents in one of its small files fails with a message. The first byte selects the
//! file; the other files are those of the demo model, without weights.

#![no_main]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sd2::ddim::Ddim;
use sd2::lpips::Lpips;
use sd2::text_encoder::TextEncoder;
use sd2::tokenizer::Tokenizer;
use sd2::unet::UNet;
use sd2::vae::Decoder;
use sd2::{Bundle, Placement, read_geometry};
use tch::{Device, Kind};

const FILES: [&str; 8] = [
    "perceptual/config.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "tokenizer/merges.txt",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "unet/config.json",
    "vae/config.json",
];

/// A copy of the small files of the demo model, for this process only.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo");
    let folder = std::env::temp_dir().join(format!("fuzz-bundle-{}", std::process::id()));
    for file in FILES {
        let to = folder.join(file);
        fs::create_dir_all(to.parent().expect("every file is in a folder")).expect("a folder can be made");
        fs::copy(demo.join(file), to).expect("a file can be copied");
    }
    folder
});

fuzz_target!(|bytes: &[u8]| {
    let Some((&choice, content)) = bytes.split_first() else { return };
    let path = FOLDER.join(FILES[usize::from(choice) % FILES.len()]);
    let before = fs::read(&path).expect("a file can be read");
    fs::write(&path, content).expect("a file can be written");
    let bundle = Bundle::open(&*FOLDER).expect("it is a folder");
    let placement = Placement::new(Device::Cpu, Kind::Float);
    let errors = [
        read_geometry(&bundle).err(),
        Ddim::load(&bundle).err(),
        Tokenizer::load(&bundle).err(),
        Lpips::load(&bundle, placement).err(),
        TextEncoder::load(&bundle, placement).err(),
        UNet::load(&bundle, placement).err(),
        Decoder::load(&bundle, placement).err(),
    ];
    fs::write(&path, before).expect("a file can be written");
    assert!(errors.iter().flatten().all(|error| !error.to_string().is_empty()));
});

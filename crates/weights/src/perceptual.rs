//! The perceptual network of a bundle: the convolutions of VGG16, and the layers that LPIPS puts on them.
//!
//! The layers are those of the package `lpips` 0.1.4 (`weights/v0.1/vgg.pth`), under the licence beside them:
//! `lin0.model.1.weight` and so on, unchanged, under the names `lin0.weight` and so on.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// `config.json`: the channels of the five stages.
pub(crate) const CONFIG: &str = "{\"channels\":[64,128,256,512,512]}\n";
/// The licence of the layers.
pub(crate) const LICENCE: &str = include_str!("../lpips-vgg/LICENSE");
/// `lin0.weight` to `lin4.weight`.
const LINS: &[u8] = include_bytes!("../lpips-vgg/lins.safetensors");
/// The convolutions: number in torchvision's `features`, channels in and out.
const CONVOLUTIONS: [(usize, usize, usize); 13] = [
    (0, 3, 64),
    (2, 64, 64),
    (5, 64, 128),
    (7, 128, 128),
    (10, 128, 256),
    (12, 256, 256),
    (14, 256, 256),
    (17, 256, 512),
    (19, 512, 512),
    (21, 512, 512),
    (24, 512, 512),
    (26, 512, 512),
    (28, 512, 512),
];
/// The longest header that is read: VGG16's has 5 KB.
const MAX_VGG_HEADER: u64 = 1 << 20;
/// About how many bytes the network has, to check the room on the disk.
pub(crate) const SIZE: u64 = 59_000_000;

/// Cuts the convolutions out of a file of VGG16 and adds the layers: the bytes of `perceptual/model.safetensors`.
///
/// # Errors
/// If the file is not VGG16 in fp32.
pub(crate) fn cut(vgg: &Path) -> Result<Vec<u8>> {
    let wrong = |why: String| Error::Perceptual(why);
    let mut file = File::open(vgg).map_err(Error::io(vgg))?;
    let size = file.metadata().map_err(Error::io(vgg))?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|_| wrong("the file is too short".to_owned()))?;
    let length = u64::from_le_bytes(length);
    if length > MAX_VGG_HEADER || length + 8 > size {
        return Err(wrong("the file is not in the format of safetensors".to_owned()));
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header).map_err(Error::io(vgg))?;
    let header: Map<String, Value> = serde_json::from_slice(&header)
        .map_err(|e| wrong(format!("the file is not in the format of safetensors: {e}")))?;
    let mut tensors = Vec::new();
    for (number, inputs, outputs) in CONVOLUTIONS {
        for (end, shape) in [("weight", vec![outputs, inputs, 3, 3]), ("bias", vec![outputs])] {
            let name = format!("features.{number}.{end}");
            let (from, to) = place(&header, &name, &shape).map_err(wrong)?;
            if 8 + length + to > size {
                return Err(wrong(format!("`{name}` lies outside the file")));
            }
            let mut bytes = vec![0; (to - from) as usize];
            file.seek(SeekFrom::Start(8 + length + from)).map_err(Error::io(vgg))?;
            file.read_exact(&mut bytes).map_err(Error::io(vgg))?;
            tensors.push((name, shape, bytes));
        }
    }
    let lins = SafeTensors::deserialize(LINS).map_err(|e| wrong(format!("the layers of LPIPS: {e}")))?;
    let mut views = Vec::new();
    for (name, shape, bytes) in &tensors {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(|e| wrong(format!("`{name}`: {e}")))?;
        views.push((name.clone(), view));
    }
    views.extend(lins.tensors());
    safetensors::serialize(views, None).map_err(|e| wrong(e.to_string()))
}

/// Looks whether tensors are the whole network, of its usual size.
///
/// # Errors
/// The first tensor that is missing or of another shape.
pub(crate) fn check(tensors: &SafeTensors) -> Result<(), String> {
    let lins = [64, 128, 256, 512, 512].into_iter().enumerate();
    let lins = lins.map(|(i, channels)| (format!("lin{i}.weight"), vec![1, channels, 1, 1]));
    let convolutions = CONVOLUTIONS.into_iter().flat_map(|(number, inputs, outputs)| {
        [("weight", vec![outputs, inputs, 3, 3]), ("bias", vec![outputs])]
            .map(|(end, shape)| (format!("features.{number}.{end}"), shape))
    });
    for (name, shape) in lins.chain(convolutions) {
        let found = tensors.tensor(&name).map_err(|_| format!("`{name}` is missing"))?;
        if found.shape() != shape {
            return Err(format!("`{name}` has the shape {:?}, not {shape:?}", found.shape()));
        }
    }
    Ok(())
}

/// Where the bytes of a tensor begin and end, after the header.
fn place(header: &Map<String, Value>, name: &str, shape: &[usize]) -> Result<(u64, u64), String> {
    #[derive(Deserialize)]
    struct Info {
        dtype: String,
        shape: Vec<usize>,
        data_offsets: (u64, u64),
    }
    let info = header.get(name).ok_or_else(|| format!("`{name}` is missing"))?;
    let info = Info::deserialize(info).map_err(|e| format!("`{name}`: {e}"))?;
    if info.dtype != "F32" {
        return Err(format!("`{name}` has the dtype {}, not F32", info.dtype));
    }
    if info.shape != shape {
        return Err(format!("`{name}` has the shape {:?}, not {shape:?}", info.shape));
    }
    let (from, to) = info.data_offsets;
    let bytes = 4 * shape.iter().product::<usize>() as u64;
    if to.checked_sub(from) != Some(bytes) {
        return Err(format!("`{name}` does not have the {bytes} bytes that its shape needs"));
    }
    Ok((from, to))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// VGG16 with tensor number `i` full of `i`, and a classifier.
    fn vgg(but: &str) -> Vec<u8> {
        let mut tensors = vec![("classifier.6.bias".to_owned(), vec![1000], vec![7; 4000])];
        for (number, inputs, outputs) in CONVOLUTIONS {
            for (end, shape) in [("weight", vec![outputs, inputs, 3, 3]), ("bias", vec![outputs])] {
                let bytes = (number as f32).to_le_bytes().repeat(shape.iter().product());
                tensors.push((format!("features.{number}.{end}"), shape, bytes));
            }
        }
        tensors.retain(|(name, ..)| name != but);
        let view = |(name, shape, bytes)| (name, TensorView::new(Dtype::F32, shape, bytes).unwrap());
        safetensors::serialize(tensors.iter().map(|(n, s, b)| view((n.clone(), s.clone(), b))), None).unwrap()
    }

    #[test]
    fn convolutions_and_layers_are_all_there_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vgg");
        fs::write(&path, vgg("")).unwrap();
        let made = cut(&path).unwrap();
        assert!(made.len() as u64 <= SIZE && made.len() as u64 > SIZE * 99 / 100, "{}", made.len());
        let made = SafeTensors::deserialize(&made).unwrap();
        assert_eq!(made.len(), 26 + 5);
        for (number, inputs, outputs) in CONVOLUTIONS {
            let weight = made.tensor(&format!("features.{number}.weight")).unwrap();
            assert_eq!((weight.dtype(), weight.shape()), (Dtype::F32, &[outputs, inputs, 3, 3][..]));
            assert!(weight.data().chunks(4).all(|bytes| bytes == (number as f32).to_le_bytes()));
        }
        for (i, channels) in [64, 128, 256, 512, 512].into_iter().enumerate() {
            let lin = made.tensor(&format!("lin{i}.weight")).unwrap();
            assert_eq!((lin.dtype(), lin.shape()), (Dtype::F32, &[1, channels, 1, 1][..]));
            let values = lin.data().chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
            assert!(values.clone().all(|v| (0.0..10.0).contains(&v)));
            // Sums of the package's own numbers.
            let sum = [6.925_991_5, 8.858_335, 17.515_005, 51.521_324, 47.034_85][i];
            assert!((values.sum::<f32>() - sum).abs() < 1e-3);
        }
    }

    #[test]
    fn what_is_not_vgg16_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vgg");
        fs::write(&path, vgg("features.28.bias")).unwrap();
        assert!(cut(&path).unwrap_err().to_string().contains("`features.28.bias` is missing"));
        for bytes in [&b"short"[..], &[255; 64], &[2, 0, 0, 0, 0, 0, 0, 0, b'{', b'x']] {
            fs::write(&path, bytes).unwrap();
            assert!(matches!(cut(&path), Err(Error::Perceptual { .. })));
        }
    }
}

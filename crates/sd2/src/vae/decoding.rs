//! Decoding pictures of any size, in parts between which a device can do other work.

use tch::{Kind, Tensor};

use super::attention::Attending;
use super::decoder::{Decoder, clamp};
use crate::nn::resnet::Half;
use crate::nn::strips::Strips;
use crate::nn::tape::Tape;

/// A picture of which a part is decoded: the feature maps of the layer that it has reached.
pub struct Decoding {
    /// Rows of latents in a strip.
    rows: i64,
    reached: Reached,
}

/// What [`Decoder::advance`] has come to.
pub enum Decoded {
    /// There is more to do.
    Part(Decoding),
    /// `[n, 3, factor * h, factor * w]` in fp32, 0..1.
    Picture(Tensor),
}

enum Reached {
    /// Nothing yet: latents.
    Beginning(Tensor),
    /// The attention of the middle block.
    Attention(Attending),
    /// What that has made.
    AfterAttention(Tensor),
    /// The input of a layer of an upward block.
    Layer { block: usize, layer: usize, map: Strips },
    /// The middle of such a layer.
    Half { block: usize, layer: usize, half: Half },
}

impl Decoder {
    /// Numbers of a strip of a feature map that fits everywhere: 256 MiB in fp32.
    pub const STRIP: i64 = 1 << 26;

    /// [`Self::pictures`] for pictures of any size. Feature maps of more than `strip` numbers go through the layers in
    /// strips of about that size, so that it needs little more memory than the largest of them.
    pub fn large_pictures(&self, latents: &Tensor, strip: i64) -> Tensor {
        let mut decoding = self.begin(latents, strip);
        loop {
            match self.advance(decoding) {
                Decoded::Part(part) => decoding = part,
                Decoded::Picture(picture) => return picture,
            }
        }
    }

    /// [`Self::large_pictures`] in parts.
    pub fn begin(&self, latents: &Tensor, strip: i64) -> Decoding {
        let (.., width) = latents.size4().expect("latents are [n, channels, h, w]");
        Decoding { rows: self.rows(width, strip), reached: Reached::Beginning(latents.shallow_clone()) }
    }

    /// How many parts latents `[n, 4, height, width]` are decoded in.
    pub fn parts(&self, [height, width]: [i64; 2], strip: i64) -> i64 {
        if height <= self.rows(width, strip) {
            return 1;
        }
        let attention = self.mid_attention.as_ref().map_or(0, |_| Attending::parts(height * width));
        let block = |resnets: usize, upsample: bool| 2 * resnets as i64 + i64::from(upsample);
        let blocks = self.up_blocks.iter().map(|each| block(each.resnets.len(), each.upsample.is_some()));
        // Before and after the attention, and the last convolution.
        3 + attention + blocks.sum::<i64>()
    }

    /// How many numbers it keeps at most between two parts: input and output of a convolution of the largest map.
    pub fn keeps(&self, [height, width]: [i64; 2], strip: i64) -> i64 {
        let largest = self.finest_inputs * height * width * self.factor * self.factor;
        if self.parts([height, width], strip) == 1 { 0 } else { 2 * largest }
    }

    /// Rows of latents in a strip. It grows from level to level as the map does, which is largest on the finest level.
    fn rows(&self, width: i64, strip: i64) -> i64 {
        (strip / (self.finest_inputs * width * self.factor * self.factor)).max(1)
    }

    /// Decodes the next part: a convolution of the whole map, or the attention of some queries. A small picture has
    /// one part.
    pub fn advance(&self, decoding: Decoding) -> Decoded {
        let _no_grad = tch::no_grad_guard();
        let Decoding { rows, reached } = decoding;
        let off = &mut Tape::off();
        let reached = match reached {
            Reached::Beginning(latents) if latents.size()[2] <= rows => {
                return Decoded::Picture(self.pictures(&latents));
            }
            Reached::Beginning(latents) => {
                let x = self.before_attention(&latents, off);
                match &self.mid_attention {
                    Some(attention) => Reached::Attention(attention.begin(&x)),
                    None => Reached::AfterAttention(x),
                }
            }
            Reached::Attention(mut attending) => match &self.mid_attention {
                Some(attention) if attending.advance() => Reached::AfterAttention(attention.finish(attending)),
                _ => Reached::Attention(attending),
            },
            Reached::AfterAttention(x) => {
                Reached::Layer { block: 0, layer: 0, map: Strips::cut(&self.after_attention(&x, off), rows) }
            }
            Reached::Layer { block, layer, map } => return self.layer(rows, [block, layer], map),
            Reached::Half { block, layer, half } => {
                let map = self.up_blocks[block].resnets[layer].second_half(half);
                Reached::Layer { block, layer: layer + 1, map }
            }
        };
        Decoded::Part(Decoding { rows, reached })
    }

    /// Begins a layer of an upward block, or, where there is none, whatever comes next.
    fn layer(&self, rows: i64, [block, layer]: [usize; 2], map: Strips) -> Decoded {
        let Some(blocks) = self.up_blocks.get(block) else { return Decoded::Picture(self.picture(map)) };
        let reached = match (blocks.resnets.get(layer), &blocks.upsample) {
            (Some(resnet), _) => Reached::Half { block, layer, half: resnet.first_half(map) },
            (None, Some(conv)) => {
                let map = map.into_strips().map(|strip| strip.upsample(conv)).collect();
                Reached::Layer { block: block + 1, layer: 0, map }
            }
            (None, None) => return self.layer(rows, [block + 1, 0], map),
        };
        Decoded::Part(Decoding { rows, reached })
    }

    fn picture(&self, map: Strips) -> Tensor {
        let norm = map.norm(&self.conv_norm_out);
        let pictures = map
            .into_strips()
            .map(|strip| clamp(&strip.convolve(&self.conv_out, |x| norm.forward_silu(x)).to_kind(Kind::Float)));
        pictures.collect::<Strips>().join()
    }
}

impl Decoding {
    /// Numbers that it keeps until it goes on.
    pub fn numbers(&self) -> i64 {
        match &self.reached {
            Reached::Beginning(map) | Reached::AfterAttention(map) => map.numel() as i64,
            Reached::Attention(attending) => attending.numbers(),
            Reached::Layer { map, .. } => map.numbers(),
            Reached::Half { half, .. } => half.numbers(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::load::Bundle;
    use crate::placement::Placement;
    use crate::testing::random;

    /// The picture in strips of some rows of latents, how many parts that took, and how many numbers were kept.
    fn decoded(decoder: &Decoder, latents: &Tensor, rows: i64) -> (Tensor, i64, i64) {
        let mut decoding = Decoding { rows, reached: Reached::Beginning(latents.shallow_clone()) };
        let mut kept = 0;
        for parts in 1.. {
            match decoder.advance(decoding) {
                Decoded::Part(part) => decoding = part,
                Decoded::Picture(picture) => return (picture, parts, kept),
            }
            kept = kept.max(decoding.numbers());
        }
        unreachable!("decoding ends");
    }

    fn in_strips(decoder: &Decoder, latents: &Tensor, rows: i64) -> Tensor {
        decoded(decoder, latents, rows).0
    }

    /// Wherever it is cut, the picture is the same, at the cuts as well.
    #[test]
    fn strips_are_seamless() {
        let decoder = Decoder::load(&Bundle::demo(), Placement::new(Device::Cpu, Kind::Float)).unwrap();
        let latents = random(&[2, 4, 13, 21]);
        let whole = decoder.pictures(&latents);
        assert!(whole.std(false).double_value(&[]) > 0.05, "a uniform picture would prove nothing");
        for rows in [1, 2, 6, 12, 13] {
            let strips = in_strips(&decoder, &latents, rows);
            assert_eq!(strips.size(), whole.size());
            let difference = (strips - &whole).abs().max().double_value(&[]);
            assert!(difference < 2e-5, "{rows} rows: {difference}");
        }
    }

    #[test]
    fn parts_and_what_they_keep_are_as_was_said() {
        let decoder = Decoder::load(&Bundle::demo(), Placement::new(Device::Cpu, Kind::Float)).unwrap();
        let latents = random(&[1, 4, 9, 12]);
        let strip = |rows| rows * decoder.finest_inputs * 12 * decoder.factor * decoder.factor;
        for rows in [2, 9] {
            let parts = decoder.parts([9, 12], strip(rows));
            let (_, found, kept) = decoded(&decoder, &latents, decoder.rows(12, strip(rows)));
            assert_eq!(found, parts, "{rows} rows");
            assert_eq!(parts == 1, rows == 9);
            assert_eq!(kept, decoder.keeps([9, 12], strip(rows)));
        }
    }

    /// In the memory order of a CPU and in that of a GPU. Rounding to 8 bits moves a picture by about a hundredth.
    #[test]
    fn strips_in_bf16_have_the_statistics_of_the_whole() {
        let latents = random(&[1, 4, 9, 12]);
        for channels_last in [true, false] {
            let placement = Placement { channels_last, ..Placement::new(Device::Cpu, Kind::BFloat16) };
            let decoder = Decoder::load(&Bundle::demo(), placement).unwrap();
            let whole = decoder.pictures(&latents);
            let difference = (in_strips(&decoder, &latents, 4) - &whole).abs().mean(Kind::Float);
            assert!(difference.double_value(&[]) < 1e-2, "channels last {channels_last}: {difference:?}");
        }
    }
}

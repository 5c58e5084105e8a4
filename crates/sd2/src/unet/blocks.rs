//! The levels of the UNet, on the way down, in the middle and on the way up.
//!
//! Each has its forward, and the backward that takes what the forward kept for it. Between the ways down and up
//! run the skips, a stack: what is pushed last is taken first.

use tch::Tensor;

use super::config::{Level, Settings};
use super::resnet::{Downsample, TimedResnet};
use super::time::Time;
use super::transformer::Transformer;
use super::{Common, Text};
use crate::layout::copies;
use crate::load::weights::Scope;
use crate::nn::tape::Kept;
use crate::nn::upsample::UpConv2d;

/// `DownBlock2D` and `CrossAttnDownBlock2D`: the one has no attentions.
pub(super) struct DownBlock {
    pub(super) resnets: Vec<TimedResnet>,
    pub(super) attentions: Vec<Transformer>,
    downsample: Option<Downsample>,
}

impl DownBlock {
    pub(super) fn load(scope: &Scope, settings: &Settings, i: usize, net: &mut Common) -> Self {
        let level = settings.levels[i];
        let before = settings.levels[i.saturating_sub(1)].channels;
        let inputs = |j| if j == 0 { before } else { level.channels };
        let last = i + 1 == settings.levels.len();
        Self {
            resnets: (0..level.layers)
                .map(|j| TimedResnet::load(&scope.at("resnets").at(j), inputs(j), level.channels, net))
                .collect(),
            attentions: (0..if level.down_attends { level.layers } else { 0 })
                .map(|j| {
                    Transformer::load(&scope.at("attentions").at(j), level.channels, level.heads, level.depth, net)
                })
                .collect(),
            downsample: (!last).then(|| Downsample::load(scope, level.channels, settings.downsample_padding)),
        }
    }

    pub(super) fn forward(
        &self,
        mut x: Tensor,
        time: &Time,
        text: &Text,
        skips: &mut Vec<Tensor>,
        kept: &mut Kept,
    ) -> Tensor {
        for (j, resnet) in self.resnets.iter().enumerate() {
            x = resnet.forward(&x, time, kept);
            if let Some(attention) = self.attentions.get(j) {
                x = kept.apply(&x, |x| attention.forward(x, text));
            }
            skips.push(x.shallow_clone());
        }
        if let Some(downsample) = &self.downsample {
            kept.push(&x);
            x = downsample.forward(&x);
            skips.push(x.shallow_clone());
        }
        x
    }

    /// `skips` are the gradients of the skips of this block and the finer ones.
    pub(super) fn backward(&self, mut g: Tensor, text: &Text, skips: &mut Vec<Tensor>, kept: &mut Kept) -> Tensor {
        let mut skip = || skips.pop().expect("the way up leaves as many gradients as the way down has skips");
        if let Some(downsample) = &self.downsample {
            g += skip();
            g = downsample.backward(&g, &kept.pop().size());
        }
        for (j, resnet) in self.resnets.iter().enumerate().rev() {
            g += skip();
            if let Some(attention) = self.attentions.get(j) {
                g = kept.back(&g, |x| attention.forward(x, text));
            }
            g = resnet.backward(&g, kept);
        }
        g
    }
}

/// `UNetMidBlock2DCrossAttn`.
pub(super) struct MidBlock {
    pub(super) resnets: [TimedResnet; 2],
    pub(super) attention: Transformer,
}

impl MidBlock {
    pub(super) fn load(scope: &Scope, level: Level, net: &mut Common) -> Self {
        let resnets =
            [0, 1].map(|j| TimedResnet::load(&scope.at("resnets").at(j), level.channels, level.channels, net));
        let attention = Transformer::load(&scope.at("attentions.0"), level.channels, level.heads, level.depth, net);
        Self { resnets, attention }
    }

    pub(super) fn forward(&self, x: &Tensor, time: &Time, text: &Text, kept: &mut Kept) -> Tensor {
        let x = self.resnets[0].forward(x, time, kept);
        let x = kept.apply(&x, |x| self.attention.forward(x, text));
        self.resnets[1].forward(&x, time, kept)
    }

    pub(super) fn backward(&self, g: &Tensor, text: &Text, kept: &mut Kept) -> Tensor {
        let g = self.resnets[1].backward(g, kept);
        let g = kept.back(&g, |x| self.attention.forward(x, text));
        self.resnets[0].backward(&g, kept)
    }
}

/// `UpBlock2D` and `CrossAttnUpBlock2D`: the one has no attentions.
pub(super) struct UpBlock {
    pub(super) resnets: Vec<TimedResnet>,
    pub(super) attentions: Vec<Transformer>,
    upsample: Option<UpConv2d>,
}

impl UpBlock {
    /// Block `i` from the coarsest level up.
    pub(super) fn load(scope: &Scope, settings: &Settings, i: usize, net: &mut Common) -> Self {
        let n = settings.levels.len();
        let channels = |from_coarsest: usize| settings.levels[n - 1 - from_coarsest].channels;
        let level = settings.levels[n - 1 - i];
        let finer = channels((i + 1).min(n - 1));
        let before = if i == 0 { channels(0) } else { channels(i - 1) };
        // One resnet more than on the way down: the last skip is that of the downsampling above.
        let resnets = level.layers + 1;
        let inputs = |j| if j == 0 { before } else { level.channels };
        let skip = |j| if j == resnets - 1 { finer } else { level.channels };
        Self {
            resnets: (0..resnets)
                .map(|j| TimedResnet::load(&scope.at("resnets").at(j), inputs(j) + skip(j), level.channels, net))
                .collect(),
            attentions: (0..if settings.up_attends[n - 1 - i] { resnets } else { 0 })
                .map(|j| {
                    Transformer::load(&scope.at("attentions").at(j), level.channels, level.heads, level.depth, net)
                })
                .collect(),
            upsample: (i + 1 < n)
                .then(|| UpConv2d::load(&scope.at("upsamplers.0.conv"), level.channels, level.channels)),
        }
    }

    pub(super) fn forward(
        &self,
        mut x: Tensor,
        time: &Time,
        text: &Text,
        skips: &mut Vec<Tensor>,
        kept: &mut Kept,
    ) -> Tensor {
        for (j, resnet) in self.resnets.iter().enumerate() {
            let skip = skips.pop().expect("the way up takes as many skips as the way down leaves");
            // Only their sizes are asked for.
            kept.push(&x);
            kept.push(&skip);
            x = resnet.forward(&join(&x, &skip), time, kept);
            if let Some(attention) = self.attentions.get(j) {
                x = kept.apply(&x, |x| attention.forward(x, text));
            }
        }
        kept.push(&x);
        self.grow(x, skips)
    }

    fn grow(&self, x: Tensor, skips: &[Tensor]) -> Tensor {
        match (&self.upsample, skips.last()) {
            (Some(upsample), Some(finer)) => {
                let size = finer.size();
                upsample.forward_to(&x, [size[2], size[3]])
            }
            _ => x,
        }
    }

    /// Appends the gradients of the skips to `skips`.
    pub(super) fn backward(&self, mut g: Tensor, text: &Text, skips: &mut Vec<Tensor>, kept: &mut Kept) -> Tensor {
        let size = kept.pop().size();
        if let Some(upsample) = &self.upsample {
            g = upsample.backward(&g, [size[2], size[3]]);
        }
        for (j, resnet) in self.resnets.iter().enumerate().rev() {
            if let Some(attention) = self.attentions.get(j) {
                g = kept.back(&g, |x| attention.forward(x, text));
            }
            g = resnet.backward(&g, kept);
            let (skip, x) = (kept.pop().size(), kept.pop().size());
            skips.push(part(&g, x[1], &skip));
            g = g.narrow(1, 0, x[1]).copy();
        }
        g
    }
}

/// Joins the channels of a feature map and its skip; where only one of them is from after the guidance branches part,
/// the other is used for every branch.
fn join(x: &Tensor, skip: &Tensor) -> Tensor {
    Tensor::cat(&[x, &copies(skip, x.size()[0] / skip.size()[0])], 1)
}

/// The gradient of a skip of the size `skip`, from that of a [`join`] in which it stood after `before` channels.
fn part(gradient: &Tensor, before: i64, skip: &[i64]) -> Tensor {
    let part = gradient.narrow(1, before, skip[1]);
    let copies = part.size()[0] / skip[0];
    if copies == 1 {
        return part.copy();
    }
    part.view([copies, skip[0], skip[1], skip[2], skip[3]]).sum_dim_intlist([0].as_slice(), false, part.kind())
}

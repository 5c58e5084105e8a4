//! The blocks of the UNet: down, middle and up.
//!
//! Each has a forward pass and a backward pass, with a tape between them. The skip connections are a stack: down blocks
//! push, up blocks pop.

use tch::Tensor;

use super::config::{Level, LoadContext, Settings};
use super::resnet::{Downsample, TimedResnet};
use super::text::Text;
use super::time::Time;
use super::transformer::Transformer;
use crate::layout::copies;
use crate::load::weights::Scope;
use crate::nn::tape::Tape;
use crate::nn::upsample::UpConv2d;

/// `CrossAttnDownBlock2D`, or `DownBlock2D`, which has no attentions.
pub(super) struct DownBlock {
    pub(super) resnets: Vec<TimedResnet>,
    pub(super) attentions: Vec<Transformer>,
    downsample: Option<Downsample>,
}

impl DownBlock {
    pub(super) fn load(scope: &Scope, settings: &Settings, i: usize, context: &mut LoadContext) -> Self {
        let level = settings.levels[i];
        let before = settings.levels[i.saturating_sub(1)].channels;
        let inputs = |j| if j == 0 { before } else { level.channels };
        let last = i + 1 == settings.levels.len();
        Self {
            resnets: (0..level.layers)
                .map(|j| TimedResnet::load(&scope.at("resnets").at(j), inputs(j), level.channels, context))
                .collect(),
            attentions: (0..if level.down_attends { level.layers } else { 0 })
                .map(|j| {
                    Transformer::load(&scope.at("attentions").at(j), level.channels, level.heads, level.depth, context)
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
        tape: &mut Tape,
    ) -> Tensor {
        for (j, resnet) in self.resnets.iter().enumerate() {
            x = resnet.forward(&x, time, tape);
            if let Some(attention) = self.attentions.get(j) {
                x = tape.record(&x, |x| attention.forward(x, text));
            }
            skips.push(x.shallow_clone());
        }
        if let Some(downsample) = &self.downsample {
            tape.push(&x);
            x = downsample.forward(&x);
            skips.push(x.shallow_clone());
        }
        x
    }

    /// Pops the gradients of this block's skips off `skips`.
    pub(super) fn backward(&self, mut g: Tensor, text: &Text, skips: &mut Vec<Tensor>, tape: &mut Tape) -> Tensor {
        let mut skip = || skips.pop().expect("the up blocks push a gradient for each skip");
        if let Some(downsample) = &self.downsample {
            g += skip();
            g = downsample.backward(&g, &tape.pop().size());
        }
        for (j, resnet) in self.resnets.iter().enumerate().rev() {
            g += skip();
            if let Some(attention) = self.attentions.get(j) {
                g = tape.backward(&g, |x| attention.forward(x, text));
            }
            g = resnet.backward(&g, tape);
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
    pub(super) fn load(scope: &Scope, level: Level, context: &mut LoadContext) -> Self {
        let resnets =
            [0, 1].map(|j| TimedResnet::load(&scope.at("resnets").at(j), level.channels, level.channels, context));
        let attention = Transformer::load(&scope.at("attentions.0"), level.channels, level.heads, level.depth, context);
        Self { resnets, attention }
    }

    pub(super) fn forward(&self, x: &Tensor, time: &Time, text: &Text, tape: &mut Tape) -> Tensor {
        let x = self.resnets[0].forward(x, time, tape);
        let x = tape.record(&x, |x| self.attention.forward(x, text));
        self.resnets[1].forward(&x, time, tape)
    }

    pub(super) fn backward(&self, g: &Tensor, text: &Text, tape: &mut Tape) -> Tensor {
        let g = self.resnets[1].backward(g, tape);
        let g = tape.backward(&g, |x| self.attention.forward(x, text));
        self.resnets[0].backward(&g, tape)
    }
}

/// `CrossAttnUpBlock2D`, or `UpBlock2D`, which has no attentions.
pub(super) struct UpBlock {
    pub(super) resnets: Vec<TimedResnet>,
    pub(super) attentions: Vec<Transformer>,
    upsample: Option<UpConv2d>,
}

impl UpBlock {
    /// Block `i` from the coarsest level up.
    pub(super) fn load(scope: &Scope, settings: &Settings, i: usize, context: &mut LoadContext) -> Self {
        let n = settings.levels.len();
        let channels = |from_coarsest: usize| settings.levels[n - 1 - from_coarsest].channels;
        let level = settings.levels[n - 1 - i];
        let finer = channels((i + 1).min(n - 1));
        let before = if i == 0 { channels(0) } else { channels(i - 1) };
        // One resnet more than in the down block: the last skip is the output of the finer level's downsampling.
        let resnets = level.layers + 1;
        let inputs = |j| if j == 0 { before } else { level.channels };
        let skip = |j| if j == resnets - 1 { finer } else { level.channels };
        Self {
            resnets: (0..resnets)
                .map(|j| TimedResnet::load(&scope.at("resnets").at(j), inputs(j) + skip(j), level.channels, context))
                .collect(),
            attentions: (0..if settings.up_attends[n - 1 - i] { resnets } else { 0 })
                .map(|j| {
                    Transformer::load(&scope.at("attentions").at(j), level.channels, level.heads, level.depth, context)
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
        tape: &mut Tape,
    ) -> Tensor {
        for (j, resnet) in self.resnets.iter().enumerate() {
            let skip = skips.pop().expect("the down blocks push a skip for each resnet");
            // For their sizes only.
            tape.push(&x);
            tape.push(&skip);
            x = resnet.forward(&join(&x, &skip), time, tape);
            if let Some(attention) = self.attentions.get(j) {
                x = tape.record(&x, |x| attention.forward(x, text));
            }
        }
        tape.push(&x);
        self.upsample(x, skips)
    }

    fn upsample(&self, x: Tensor, skips: &[Tensor]) -> Tensor {
        match (&self.upsample, skips.last()) {
            (Some(upsample), Some(finer)) => {
                let size = finer.size();
                upsample.forward_to(&x, [size[2], size[3]])
            }
            _ => x,
        }
    }

    /// Pushes the gradients of this block's skips on `skips`.
    pub(super) fn backward(&self, mut g: Tensor, text: &Text, skips: &mut Vec<Tensor>, tape: &mut Tape) -> Tensor {
        let size = tape.pop().size();
        if let Some(upsample) = &self.upsample {
            g = upsample.backward(&g, [size[2], size[3]]);
        }
        for (j, resnet) in self.resnets.iter().enumerate().rev() {
            if let Some(attention) = self.attentions.get(j) {
                g = tape.backward(&g, |x| attention.forward(x, text));
            }
            g = resnet.backward(&g, tape);
            let (skip, x) = (tape.pop().size(), tape.pop().size());
            skips.push(skip_gradient(&g, x[1], &skip));
            g = g.narrow(1, 0, x[1]).copy();
        }
        g
    }
}

/// The channels of a feature map and its skip. Where only the map is computed for each guidance branch, all branches of
/// a window use the same skip.
fn join(x: &Tensor, skip: &Tensor) -> Tensor {
    Tensor::cat(&[x, &copies(skip, x.size()[0] / skip.size()[0])], 1)
}

/// The gradient of a skip of the size `skip`, from that of a [`join`] in which it comes after `before` channels.
fn skip_gradient(gradient: &Tensor, before: i64, skip: &[i64]) -> Tensor {
    let part = gradient.narrow(1, before, skip[1]);
    let copies = part.size()[0] / skip[0];
    if copies == 1 {
        return part.copy();
    }
    part.view([copies, skip[0], skip[1], skip[2], skip[3]]).sum_dim_intlist([0].as_slice(), false, part.kind())
}

//! What the networks compute for a batch of samples: the output of the UNet, the gradient of the synchronisation, the
//! features to compare with, and the picture.

use sd2::Checkpointing;
use sd2::lpips::Features;
use sd2::unet::{Mixture, Text, Time};
use tch::Tensor;

use super::shared::{Comparison, Networks, Sample};
use crate::range::{Network, is_finite};

impl Networks<'_> {
    /// The guided output of the UNet for each sample, `[n, c, h, w]`.
    pub(super) fn output(&self, samples: &[Sample]) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        let samples: Vec<&Sample> = samples.iter().collect();
        let latents = stack(&samples);
        guide(&samples, self.unet.forward(&latents, &times(&samples), &texts(&samples)))
    }

    /// For each sample the gradient of its perceptual distance to its target, `[n, c, h, w]`: back through the
    /// perceptual network, the decoder, DDIM, guidance and the UNet.
    pub(super) fn gradient(&self, comparisons: &[Comparison], checkpointing: Checkpointing) -> Tensor {
        self.watched_gradient(comparisons, checkpointing, |_, _| {})
    }

    /// The gradient of one sample, or else the first network whose numbers are not finite.
    pub(super) fn gradient_or_fault(
        &self,
        comparison: &Comparison,
        checkpointing: Checkpointing,
    ) -> Result<Tensor, Network> {
        let mut fault = None;
        let comparisons = std::slice::from_ref(comparison);
        let gradient = self.watched_gradient(comparisons, checkpointing, |network, numbers| {
            if fault.is_none() && !is_finite(numbers) {
                fault = Some(network);
            }
        });
        fault.map_or(Ok(gradient), Err)
    }

    /// [`Self::gradient`]; `watch` sees the numbers that each network passes on, in order.
    fn watched_gradient(
        &self,
        comparisons: &[Comparison],
        checkpointing: Checkpointing,
        mut watch: impl FnMut(Network, &Tensor),
    ) -> Tensor {
        let samples: Vec<&Sample> = comparisons.iter().map(|comparison| &comparison.sample).collect();
        let (latents, text) = (stack(&samples), texts(&samples));
        let (prediction, unet_tape) = self.unet.forward_recorded(&latents, &times(&samples), &text, checkpointing);
        // From the latents and the prediction to the original samples it is a few multiplications.
        let (latents, prediction) = (latents.set_requires_grad(true), prediction.set_requires_grad(true));
        let originals = originals(&samples, &latents, &guide(&samples, prediction.shallow_clone()));
        watch(Network::UNet, &originals);
        let (pictures, decoder_tape) = self.decoder.pictures_recorded(&originals.detach(), checkpointing);
        watch(Network::Decoder, &pictures);
        let gradient = self.distance_gradient(comparisons, &pictures);
        watch(Network::Perceptual, &gradient);
        let gradient = self.decoder.pictures_backward(&gradient, decoder_tape);
        watch(Network::Decoder, &gradient);
        // The samples depend on the latents directly, and through the prediction.
        let gradients = libtorch::backward(&[(&originals, &gradient.contiguous())], &[&latents, &prediction])
            .unwrap_or_else(|error| panic!("{error}"));
        let gradient = &gradients[0] + self.unet.backward(&gradients[1], &text, unet_tape);
        watch(Network::UNet, &gradient);
        gradient
    }

    /// The gradient of pictures in 0..1 with respect to their distances to the targets.
    fn distance_gradient(&self, comparisons: &[Comparison], pictures: &Tensor) -> Tensor {
        // The original's network takes -1..1.
        let pictures = pictures * 2.0 - 1.0;
        let targets: Vec<&Features> = comparisons.iter().map(|comparison| comparison.target).collect();
        let gradient = if targets.iter().all(|target| std::ptr::eq(*target, targets[0])) {
            self.lpips.gradient(&pictures, targets[0])
        } else {
            self.lpips.gradient(&pictures, &Features::cat(&targets))
        };
        gradient * 2.0
    }
}

/// The times of a batch.
fn times<'a>(samples: &[&Sample<'a>]) -> Time<'a> {
    Time::of_batch(&samples.iter().map(|sample| (sample.time, sample.row)).collect::<Vec<_>>())
}

/// The texts of a batch.
fn texts(samples: &[&Sample]) -> Text {
    let of_branch = |branch: usize| -> Vec<Mixture> { samples.iter().map(|sample| sample.texts[branch]).collect() };
    Text::of_batch(&(0..samples[0].texts.len()).map(of_branch).collect::<Vec<_>>())
}

/// Classifier-free guidance: from the predictions of all branches to the output.
fn guide(samples: &[&Sample], prediction: Tensor) -> Tensor {
    if samples[0].texts.len() == 1 {
        return prediction;
    }
    let n = samples.len() as i64;
    let [negative, positive] = [0, 1].map(|branch| prediction.narrow(0, branch * n, n));
    let difference = positive - &negative;
    negative + scale(difference, &samples.iter().map(|sample| sample.guidance).collect::<Vec<_>>())
}

fn stack(samples: &[&Sample]) -> Tensor {
    Tensor::cat(&samples.iter().map(|sample| sample.latents).collect::<Vec<_>>(), 0)
}

/// The original samples that windows are heading for, each by the step of its own task.
fn originals(samples: &[&Sample], latents: &Tensor, output: &Tensor) -> Tensor {
    let step = samples[0].step;
    if samples.iter().all(|sample| sample.step == step) {
        return step.original(latents, output);
    }
    let parts = std::iter::zip(samples, std::iter::zip(latents.split(1, 0), output.split(1, 0)));
    let originals = parts.map(|(sample, (latents, output))| sample.step.original(&latents, &output));
    Tensor::cat(&originals.collect::<Vec<_>>(), 0)
}

/// Multiplies each of `n` samples by its factor.
fn scale(samples: Tensor, factors: &[f64]) -> Tensor {
    if factors.iter().all(|factor| factor == &factors[0]) {
        return samples * factors[0];
    }
    let column = Tensor::from_slice(factors).to_kind(samples.kind()).to_device(samples.device());
    samples * column.view([-1, 1, 1, 1])
}

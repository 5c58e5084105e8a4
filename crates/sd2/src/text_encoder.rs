//! CLIP's text encoder: token ids to embeddings, by transformers' `CLIPTextModel`.

use tch::{Device, Tensor};

use crate::load::config::Config;
use crate::load::weights::{Scope, Weights};
use crate::load::{Bundle, Result};
use crate::nn::layers::{LayerNorm, Linear, attention, merge_heads, split_heads};
use crate::placement::Placement;

/// The text encoder. Its output is the last hidden state after the final layer norm, as Stable Diffusion 2 uses it.
pub struct TextEncoder {
    /// On a GPU only. In main memory it would be a quarter of all weights and nearly always idle; there it is loaded
    /// from the mapped files for each new text, which takes about a second.
    resident: Option<Network>,
    settings: Settings,
    weights: Weights,
    /// Length of its input in tokens.
    pub length: i64,
    /// Width of its output.
    pub width: i64,
}

struct Network {
    token_embedding: Tensor,
    position_embedding: Tensor,
    layers: Vec<Layer>,
    final_layer_norm: LayerNorm,
}

struct Settings {
    vocabulary: i64,
    length: i64,
    width: i64,
    mlp_width: i64,
    layers: i64,
    heads: i64,
    eps: f64,
    activation: Activation,
}

#[derive(Clone, Copy)]
enum Activation {
    Gelu,
    QuickGelu,
}

/// Keys that every configuration of transformers may have: of training, of the tokenizer, of making text, of outputs
/// that are not used.
const UNUSED: [&str; 66] = [
    "add_cross_attention",
    "attention_dropout",
    "attn_implementation",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "chunk_size_feed_forward",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dropout",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "id2label",
    "initializer_factor",
    "initializer_range",
    "is_composition",
    "is_decoder",
    "is_encoder_decoder",
    "label2id",
    "length_penalty",
    "logit_scale_init_value",
    "max_length",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "pad_token_id",
    "prefix",
    "problem_type",
    "projection_dim",
    "pruned_heads",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tie_word_embeddings",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers_weights",
    "typical_p",
    "use_bfloat16",
    "use_cache",
    "vision_config",
    "vision_config_dict",
    "text_config_dict",
];

impl Settings {
    fn read(bundle: &Bundle) -> Result<Self> {
        let mut c = Config::read(bundle, "text_encoder/config.json", &["CLIPTextModel"])?;
        match c.or("model_type", "clip_text_model".to_owned()).as_str() {
            // The text half of a whole CLIP.
            "clip" => c.descend("text_config"),
            "clip_text_model" => {}
            other => c.problem(format!("`model_type` is `{other}`; supported: `clip_text_model`")),
        }
        let activation = match c.or("hidden_act", "quick_gelu".to_owned()).as_str() {
            "gelu" => Activation::Gelu,
            "quick_gelu" => Activation::QuickGelu,
            other => {
                c.problem(format!("`hidden_act` is `{other}`; supported: `gelu`, `quick_gelu`"));
                Activation::Gelu
            }
        };
        let settings = Self {
            vocabulary: c.size("vocab_size", Some(49408)),
            length: c.size("max_position_embeddings", Some(77)),
            width: c.size("hidden_size", Some(512)),
            mlp_width: c.size("intermediate_size", Some(2048)),
            layers: c.size("num_hidden_layers", Some(12)),
            heads: c.size("num_attention_heads", Some(8)),
            eps: c.or("layer_norm_eps", 1e-5),
            activation,
        };
        if settings.width % settings.heads != 0 {
            c.problem(format!(
                "`hidden_size` {} is not a multiple of `num_attention_heads` {}",
                settings.width, settings.heads
            ));
        }
        c.ignore(&UNUSED);
        c.finish()?;
        Ok(settings)
    }
}

impl TextEncoder {
    /// Loads `text_encoder/` of a bundle.
    ///
    /// # Errors
    /// If a file is missing or does not match; see [`crate::Error`].
    pub fn load(bundle: &Bundle, placement: Placement) -> Result<Self> {
        let settings = Settings::read(bundle)?;
        let weights = Weights::open(bundle, "text_encoder", "model", placement, placement.kind)?;
        // A table of 0, 1, 2, .. that older files keep; a projection that this use of the model does not need;
        // and the other half of a whole CLIP.
        let unused = ["text_projection.", "visual_projection.", "vision_model.", "logit_scale"];
        weights.ignore(|name| {
            name.ends_with("embeddings.position_ids") || unused.iter().any(|unused| name.starts_with(unused))
        });
        let network = Network::load(&weights, &settings)?;
        let resident = (placement.device != Device::Cpu).then_some(network);
        Ok(Self { resident, length: settings.length, width: settings.width, settings, weights })
    }

    /// Embeds one text: [`Self::length`] token ids to `[1, length, width]` in the dtype of the weights.
    pub fn forward(&self, ids: &[i64]) -> Tensor {
        match &self.resident {
            Some(network) => network.forward(ids),
            None => Network::load(&self.weights, &self.settings)
                .expect("the weights matched when the model was loaded")
                .forward(ids),
        }
    }
}

impl Network {
    fn load(weights: &Weights, settings: &Settings) -> Result<Self> {
        // transformers 5 writes files without the prefix.
        let root = weights.root();
        let scope = if weights.has("text_model.") { root.at("text_model") } else { root };
        let embeddings = scope.at("embeddings");
        let network = Self {
            token_embedding: embeddings.at("token_embedding").tensor("weight", &[settings.vocabulary, settings.width]),
            position_embedding: embeddings
                .at("position_embedding")
                .tensor("weight", &[settings.length, settings.width]),
            layers: (0..settings.layers).map(|i| Layer::load(&scope.at("encoder.layers").at(i), settings)).collect(),
            final_layer_norm: LayerNorm::load(&scope.at("final_layer_norm"), settings.width, settings.eps),
        };
        weights.finish()?;
        Ok(network)
    }

    fn forward(&self, ids: &[i64]) -> Tensor {
        let ids = Tensor::from_slice(ids).unsqueeze(0).to_device(self.token_embedding.device());
        let tokens = Tensor::embedding(&self.token_embedding, &ids, -1, false, false);
        let mut x = tokens + &self.position_embedding;
        for layer in &self.layers {
            x = layer.forward(&x);
        }
        self.final_layer_norm.forward(&x)
    }
}

struct Layer {
    layer_norm1: LayerNorm,
    qkv: Linear,
    out_proj: Linear,
    layer_norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    heads: i64,
    activation: Activation,
}

impl Layer {
    fn load(scope: &Scope, s: &Settings) -> Self {
        let attention = scope.at("self_attn");
        let projection = |name| Linear::load(&attention.at(name), s.width, s.width);
        Self {
            layer_norm1: LayerNorm::load(&scope.at("layer_norm1"), s.width, s.eps),
            qkv: Linear::fused(&["q_proj", "k_proj", "v_proj"].map(projection)),
            out_proj: projection("out_proj"),
            layer_norm2: LayerNorm::load(&scope.at("layer_norm2"), s.width, s.eps),
            fc1: Linear::load(&scope.at("mlp.fc1"), s.width, s.mlp_width),
            fc2: Linear::load(&scope.at("mlp.fc2"), s.mlp_width, s.width),
            heads: s.heads,
            activation: s.activation,
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let qkv = self.qkv.forward(&self.layer_norm1.forward(x)).chunk(3, -1);
        let [q, k, v] = [0, 1, 2].map(|i: usize| split_heads(&qkv[i], self.heads));
        let x = x + self.out_proj.forward(&merge_heads(&attention(&q, &k, &v, true)));
        let hidden = self.fc1.forward(&self.layer_norm2.forward(&x));
        let hidden = match self.activation {
            Activation::Gelu => hidden.gelu("none"),
            Activation::QuickGelu => (&hidden * 1.702).sigmoid() * hidden,
        };
        x + self.fc2.forward(&hidden)
    }
}

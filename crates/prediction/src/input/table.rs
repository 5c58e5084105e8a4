//! The inputs, written once: name, type, default, bounds and description. The thirteen of the hosted model come first,
//! in its order; what comes after them is this project's own, and changes nothing at its default.

use serde_json::{Value, json};

/// One input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Field {
    /// Its key in the JSON.
    pub name: &'static str,
    /// Its type and, for numbers, its inclusive bounds.
    pub kind: Kind,
    /// The value if it is left out.
    pub default: Default,
    /// What it means; in the words of the hosted model where it has the input.
    pub description: &'static str,
    /// What is required beyond type and bounds; may be empty.
    pub rule: &'static str,
}

/// The type of an input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A whole number between inclusive bounds, where there are bounds.
    Integer {
        /// The least.
        minimum: Option<u64>,
        /// The greatest.
        maximum: Option<u64>,
    },
    /// A number between inclusive bounds.
    Number {
        /// The least.
        minimum: f64,
        /// The greatest.
        maximum: f64,
    },
    /// True or false.
    Boolean,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Several texts.
    Texts {
        /// The smallest number of texts, if there are any.
        minimum: usize,
        /// The greatest number.
        maximum: usize,
    },
    /// A picture: the URL of one, or a data URI that contains it. On the command line, a file.
    Picture,
}

/// The default of an input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Default {
    /// The input must be given.
    Required,
    /// A text, or one of the words of a choice.
    Text(&'static str),
    /// A whole number.
    Integer(u64),
    /// A number.
    Number(f64),
    /// True or false.
    Boolean(bool),
    /// No texts.
    Empty,
    /// Nothing: it may be left out, or `null`.
    Nothing,
}

/// How many inputs the hosted model has.
pub const HOSTED: usize = 13;

/// How many inputs there are.
pub const COUNT: usize = HOSTED + 14;

/// All inputs, in order.
pub const TABLE: [Field; COUNT] = [
    field("prompt", Kind::Text, Default::Required, "Prompt to generate from", ""),
    field("negative_prompt", Kind::Text, Default::Text(""), "Prompt for negative conditioning", ""),
    field(
        "width",
        between(512, 3072),
        Default::Integer(2048),
        "Width of the output image",
        "a multiple of 8 * stride, at least one window",
    ),
    field(
        "height",
        between(512, 3072),
        Default::Integer(512),
        "Height of the output image",
        "a multiple of 8 * stride, at least one window; exactly one window with loop_closure",
    ),
    field(
        "guidance_scale",
        Kind::Number { minimum: 0.0, maximum: 20.0 },
        Default::Number(7.5),
        "Scale of the guidance image",
        "",
    ),
    field(
        "sync_weight",
        Kind::Number { minimum: 0.0, maximum: 30.0 },
        Default::Number(20.0),
        "Weight of the SyncDiffusion",
        "",
    ),
    field(
        "sync_decay_rate",
        Kind::Number { minimum: 0.0, maximum: 1.0 },
        Default::Number(0.99),
        "SyncDiffusion weight scheduler decay rate",
        "",
    ),
    field(
        "sync_freq",
        Kind::Integer { minimum: None, maximum: None },
        Default::Integer(1),
        "Frequency for the SyncDiffusion",
        "at least 1",
    ),
    field(
        "sync_threshold",
        between(0, 50),
        Default::Integer(5),
        "Maximum number of steps applied with SyncDiffusion",
        "",
    ),
    field(
        "num_inference_steps",
        between(1, 200),
        Default::Integer(50),
        "Number of inference steps for the diffusion",
        "",
    ),
    field(
        "stride",
        Kind::Integer { minimum: None, maximum: None },
        Default::Integer(16),
        "Window stride for the diffusion",
        "8, 16 or 32 with windows of 64 latents",
    ),
    field(
        "seed",
        Kind::Integer { minimum: Some(0), maximum: None },
        Default::Integer(2),
        "Seed for the SyncDiffusion",
        "at most 18446744073709551615",
    ),
    field("loop_closure", Kind::Boolean, Default::Boolean(false), "Use loop closure", ""),
    field(
        "blend",
        Kind::Choice(&["even", "smooth"]),
        Default::Text("even"),
        "How windows are averaged where they overlap: evenly, or less towards their borders, which then do not show",
        "smooth if left out with seamless or image",
    ),
    field(
        "seamless",
        Kind::Boolean,
        Default::Boolean(false),
        "Draw a loop whose ends meet without a seam, of any height",
        "not with loop_closure",
    ),
    field(
        "sync_mode",
        Kind::Choice(&["windows", "canvas"]),
        Default::Text("windows"),
        "What is synchronised: all windows, or as many as fit side by side on the canvas, with a third of the gradients",
        "",
    ),
    field(
        "scheduler",
        Kind::Choice(&["ddim", "unipc", "dpmpp_2m"]),
        Default::Text("ddim"),
        "How the noise is removed; unipc needs fewer steps than ddim for the same picture",
        "",
    ),
    field(
        "preset",
        Kind::Choice(&["default", "fast"]),
        Default::Text("default"),
        "What is left out: fast is about a quarter of the work, by a stride of 32, blend smooth, sync_mode canvas with a \
         sync_weight of 30, and scheduler unipc with 20 steps",
        "what is given wins",
    ),
    field(
        "prompts",
        Kind::Texts { minimum: 2, maximum: MAX_PROMPTS },
        Default::Empty,
        "Texts from left to right, each beside prompt: the panorama goes from one to the next",
        "2 to 10",
    ),
    field(
        "anchor_image",
        Kind::Picture,
        Default::Nothing,
        "Picture in whose look the panorama is drawn",
        "PNG, JPEG or WebP",
    ),
    field(
        "image",
        Kind::Picture,
        Default::Nothing,
        "Picture that becomes part of the panorama, which is drawn around it",
        "PNG, JPEG or WebP, scaled to the height of the panorama",
    ),
    field(
        "image_left",
        between(0, 3071),
        Default::Nothing,
        "Column of the panorama at which image begins; in the middle if left out",
        "with image",
    ),
    field(
        "strength",
        Kind::Number { minimum: 0.0, maximum: 1.0 },
        Default::Nothing,
        "How much of image is drawn again; nothing if left out",
        "with image",
    ),
    field(
        "output_format",
        Kind::Choice(&["png", "jpeg", "webp"]),
        Default::Text("png"),
        "How the picture is encoded: png and webp without loss, jpeg in far fewer bytes",
        "",
    ),
    field("output_quality", between(1, 100), Default::Integer(90), "Quality of a jpeg; the others lose nothing", ""),
    field(
        "evaluate",
        Kind::Boolean,
        Default::Boolean(false),
        "Measure the picture: how visible its seam and the borders of its windows are, and how much it is of one piece",
        "in metrics",
    ),
    field(
        "num_outputs",
        between(1, 10),
        Default::Integer(1),
        "How many pictures, of this seed and those after it; the output of more than one is a list",
        "",
    ),
];

/// The greatest number of texts from left to right.
pub const MAX_PROMPTS: usize = 10;

/// The inputs that the preset `fast` sets where they are left out.
pub const FAST: [(&str, Default); 6] = [
    ("blend", Default::Text("smooth")),
    ("num_inference_steps", Default::Integer(20)),
    ("scheduler", Default::Text("unipc")),
    ("stride", Default::Integer(32)),
    ("sync_mode", Default::Text("canvas")),
    // Moves the panorama as far as 20 moves windows.
    ("sync_weight", Default::Number(30.0)),
];

const fn field(
    name: &'static str,
    kind: Kind,
    default: Default,
    description: &'static str,
    rule: &'static str,
) -> Field {
    Field { name, kind, default, description, rule }
}

const fn between(minimum: u64, maximum: u64) -> Kind {
    Kind::Integer { minimum: Some(minimum), maximum: Some(maximum) }
}

/// What the preset `fast` sets an input to.
pub fn fast(name: &str) -> Option<Value> {
    FAST.iter().find(|(known, _)| *known == name).and_then(|(_, default)| default.value())
}

/// The field of a name.
pub fn find(name: &str) -> Option<&'static Field> {
    TABLE.iter().find(|field| field.name == name)
}

impl Kind {
    /// The name of the type in JSON Schema.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text | Self::Choice(_) | Self::Picture => "string",
            Self::Integer { .. } => "integer",
            Self::Number { .. } => "number",
            Self::Boolean => "boolean",
            Self::Texts { .. } => "array",
        }
    }

    /// The inclusive bounds as JSON, whole numbers without a fraction.
    pub fn bounds(self) -> (Option<Value>, Option<Value>) {
        match self {
            Self::Text | Self::Boolean | Self::Choice(_) | Self::Texts { .. } | Self::Picture => (None, None),
            Self::Integer { minimum, maximum } => (minimum.map(Value::from), maximum.map(Value::from)),
            Self::Number { minimum, maximum } => (Some(number(minimum)), Some(number(maximum))),
        }
    }

    /// What the help of the command line has for a value.
    pub fn placeholder(self) -> String {
        match self {
            Self::Choice(words) => words.join("|"),
            Self::Texts { .. } => "TEXT".to_owned(),
            Self::Picture => "FILE".to_owned(),
            other => other.name().to_uppercase(),
        }
    }
}

impl Default {
    /// The default as JSON, whole numbers without a fraction; `None` where the input must be given. Nothing is `null`.
    pub fn value(self) -> Option<Value> {
        match self {
            Self::Required => None,
            Self::Text(text) => Some(text.into()),
            Self::Integer(value) => Some(value.into()),
            Self::Number(value) => Some(number(value)),
            Self::Boolean(value) => Some(value.into()),
            Self::Empty => Some(json!([])),
            Self::Nothing => Some(Value::Null),
        }
    }
}

impl Field {
    /// An argument of the command line as JSON: what cannot be parsed as the type stays a text, which the validator
    /// refuses. Of several texts it is one.
    pub fn read(&self, word: &str) -> Value {
        if matches!(self.kind.name(), "string" | "array") {
            return word.into();
        }
        match serde_json::from_str(word) {
            Ok(value @ (Value::Number(_) | Value::Bool(_))) => value,
            _ => word.into(),
        }
    }

    /// The words of the name with capitals, as the schema titles it.
    pub fn title(&self) -> String {
        let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
        self.name.split('_').map(capital).collect::<Vec<_>>().join(" ")
    }

    /// The name as a flag of the command line, without the dashes before it.
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// Whether its default and its bounds may be others for another model.
    pub fn is_fitted(&self) -> bool {
        matches!(self.name, "width" | "height" | "stride")
    }

    /// Its description, bounds, rule and default, in a line.
    pub fn help(&self) -> String {
        let bounds = match self.kind.bounds() {
            (Some(minimum), Some(maximum)) => format!(", {minimum} to {maximum}"),
            _ => String::new(),
        };
        let rule = if self.rule.is_empty() { String::new() } else { format!("; {}", self.rule) };
        let default = match self.default.value() {
            Some(Value::String(text)) if text.is_empty() => String::new(),
            Some(Value::Null | Value::Array(_)) => String::new(),
            Some(Value::String(text)) => format!(" [default: {text}]"),
            Some(default) if self.is_fitted() => {
                format!(" [default: {default}, or the nearest that the model can draw]")
            }
            Some(default) => format!(" [default: {default}]"),
            None => " [required]".to_owned(),
        };
        let again = if let Kind::Texts { .. } = self.kind { "; a flag for each" } else { "" };
        format!("{}{bounds}{rule}{again}{default}", self.description)
    }
}

/// A whole number without a fraction, as Cog's schema prints them.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 { Value::from(value as i64) } else { Value::from(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_command_line_become_json() {
        assert_eq!(find("width").unwrap().read("1024"), json!(1024));
        assert_eq!(find("width").unwrap().read("wide"), json!("wide"));
        assert_eq!(find("prompt").unwrap().read("1024"), json!("1024"));
        assert_eq!(find("loop_closure").unwrap().read("true"), json!(true));
        assert_eq!(find("blend").unwrap().read("true"), json!("true"));
    }
}

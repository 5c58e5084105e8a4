//! Inputs that are valid each, but not together.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// The fields that are wrong, and why. Each message names the other field, and what would work.
pub(super) fn of(values: &Map<String, Value>) -> BTreeMap<&'static str, String> {
    let is = |name: &str| values.get(name) == Some(&Value::Bool(true));
    let number = |name: &str| values.get(name).and_then(Value::as_u64);
    let mut errors = BTreeMap::new();
    if is("seamless") && is("loop_closure") {
        let message = "`seamless` cannot be used with `loop_closure`; leave out `loop_closure` for a loop without a seam, \
            or `seamless` for the original's";
        errors.insert("seamless", message.to_owned());
    }
    if !values.contains_key("image") {
        for (name, says) in [("image_left", "where `image` begins"), ("strength", "how much of `image` is drawn again")]
        {
            if values.contains_key(name) {
                errors
                    .insert(name, format!("it says {says}, and there is none; give an `image`, or leave out `{name}`"));
            }
        }
    } else if let (Some(left), Some(width)) = (number("image_left"), number("width"))
        && left >= width
    {
        let message =
            format!("{left} is not left of the right edge of the panorama; it is less than its `width` of {width}");
        errors.insert("image_left", message);
    }
    errors
}

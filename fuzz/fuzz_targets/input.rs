//! Any JSON is an `Input` or a list of what is wrong, and an `Input` written as JSON is the same `Input`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use prediction::input::{Geometry, parse};
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return };
    for geometry in [None, Some(Geometry::default())] {
        match parse(&value, geometry) {
            Err(wrong) => assert!(!wrong.is_empty() && wrong.iter().all(|wrong| !wrong.message.is_empty())),
            Ok(parsed) => {
                let written = serde_json::to_value(&parsed.input).expect("an input is JSON");
                let again = parse(&written, geometry).expect("what was taken is taken again");
                assert_eq!(again.input, parsed.input);
            }
        }
    }
});

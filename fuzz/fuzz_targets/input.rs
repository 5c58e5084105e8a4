//! Any JSON is an `Input` or a list of errors, and an `Input` survives writing and parsing.

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
                let again = parse(&written, geometry).expect("an accepted input is accepted again");
                assert_eq!(again.input, parsed.input);
            }
        }
    }
});

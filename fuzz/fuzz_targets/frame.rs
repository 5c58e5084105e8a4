//! Whatever a worker writes is a frame, garbage that is told, or an end; what was read is written and read the same.

#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use protocol::{
    Event,
    frame::{self, Received},
};

fuzz_target!(|bytes: &[u8]| {
    let mut from = Cursor::new(bytes);
    loop {
        let before = from.position();
        match frame::read::<Event>(&mut from) {
            Err(_) | Ok(Received::End) => return,
            Ok(Received::Frame(event, bytes)) => {
                let mut written = Vec::new();
                frame::write(&mut written, &event, &bytes).expect("a vector takes everything");
                let again = frame::read::<Event>(written.as_slice()).expect("a frame was written");
                assert!(matches!(again, Received::Frame(e, b) if e == event && b == bytes));
            }
            Ok(Received::Malformed(_)) => {}
        }
        assert!(from.position() > before, "a reader that does not move would never end");
    }
});

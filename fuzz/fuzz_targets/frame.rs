//! Arbitrary output of a worker is a frame, reported garbage, or the end; a frame survives writing and reading.

#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use protocol::Event;
use protocol::frame::{self, Received};

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
        assert!(from.position() > before, "the reader must advance");
    }
});

//! Any bytes are a picture of the size that it says, or an error in a few words.

#![no_main]

use libfuzzer_sys::fuzz_target;
use prediction::given_pictures::decode;

fuzz_target!(|bytes: &[u8]| match decode(bytes) {
    Ok(read) => assert_eq!(read.rgb.len() as u64, 3 * u64::from(read.width) * u64::from(read.height)),
    Err(why) => assert!(!why.is_empty() && why.len() < 1000),
});

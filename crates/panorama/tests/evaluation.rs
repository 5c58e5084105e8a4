//! Figures of pictures against the Python reference (`tests/reference/evaluation.py`).

use fixtures::{F32, TOLERANCE, bundle, json};
use geometry::{Ends, Geometry};
use panorama::{Figures, Picture, figures};
use sd2::lpips::Lpips;
use serde_json::Value;

/// A picture that the reference draws alike, by whole numbers.
fn drawn(width: u32, height: u32, seed: u64) -> Picture {
    let mut rgb = Vec::with_capacity(3 * (width * height) as usize);
    for y in 0..u64::from(height) {
        for x in 0..u64::from(width) {
            for c in 0..3 {
                let wave = (x * (c + 2) + y * 3 + seed * 31) % 510;
                let wave = wave.min(510 - wave) * 5 / 8;
                let steps = (x / 8 * 5 + y / 8 * 3) % 11 + (x / 128 * 37 + y / 128 * 29 + seed) % 23;
                let mixed = (x * 73_856_093) ^ (y * 19_349_663) ^ ((c + 1) * 83_492_791) ^ (seed * 2_654_435_761);
                rgb.push((wave + steps + (mixed >> 13) % 16) as u8);
            }
        }
    }
    Picture { width, height, rgb }
}

#[test]
fn figures_are_those_of_the_reference() {
    for case in json("evaluation.json").as_array().unwrap() {
        let number = |key: &str| case[key].as_u64().unwrap();
        let (width, height) = (number("width") as u32, number("height") as u32);
        let lpips = Lpips::load(&bundle(case["bundle"].as_str().unwrap()), F32).unwrap();
        let geometry = Geometry { window: 64, vae_factor: 8 };
        let layout = case["stride"].as_u64().map(|stride| {
            geometry.layout((width, height), stride as u32, Ends::of(case["loop_closure"].as_bool().unwrap(), false))
        });
        let Figures { seam, borders, row_borders, intra_lpips } =
            figures(&lpips, geometry, layout, &drawn(width, height, number("seed")));
        for (name, found) in
            [("seam", seam), ("borders", borders), ("row_borders", row_borders), ("intra_lpips", intra_lpips)]
        {
            let expected: &Value = &case["expected"][name];
            println!("{width}x{height} {name}: {found:?}, by the reference {expected}");
            match (found, expected.as_f64()) {
                (None, None) => {}
                (Some(found), Some(expected)) => {
                    assert!((found / expected - 1.0).abs() < TOLERANCE, "{name}: {found} is not {expected}; {case}");
                }
                other => panic!("{name}: {other:?}; {case}"),
            }
        }
    }
}

//! Previews of the demo model against its pictures.

use fixtures::{F32, root};
use panorama::{
    Blend, Checkpointing, Engine, Limits, Picture, Preview, Scheduler, Settings, Sources, Stage, SyncMode, Widths,
};
use sd2::{Bundle, Sd2};
use tch::{Kind, Tensor};

const LIMITS: Limits = Limits {
    denoise: 4,
    synchronise: 1,
    checkpointing: Checkpointing::Off,
    widths: Widths::Any,
    strip: 1 << 26,
    kept: 0,
};

fn settings(prompt: &str, seed: u64) -> Settings {
    Settings {
        prompt: prompt.to_owned(),
        negative_prompt: String::new(),
        width: 640,
        height: 512,
        guidance_scale: 5.0,
        sync_weight: 0.0,
        sync_decay_rate: 0.99,
        sync_freq: 1,
        sync_threshold: 0,
        num_inference_steps: 8,
        stride: 16,
        seed,
        loop_closure: false,
        blend: Blend::Even,
        seamless: false,
        sync_mode: SyncMode::Windows,
        scheduler: Scheduler::Ddim,
        sources: Sources::default(),
    }
}

/// The last latents of a panorama, and its picture.
fn draw(engine: &mut Engine, settings: &Settings) -> (Tensor, Picture) {
    let mut panorama = engine.begin(settings).unwrap();
    let mut latents = panorama.latents().shallow_clone();
    while let Some(stage) = panorama.stage() {
        if stage == Stage::Decode {
            latents = panorama.latents().shallow_clone();
        }
        let tasks = panorama.take(LIMITS.of(stage));
        for outcome in engine.compute(&tasks, LIMITS) {
            if let Some(picture) = panorama.put(outcome) {
                return (latents, picture);
            }
        }
    }
    panic!("a panorama ends with its picture")
}

/// The correlation of a preview with the picture, whose pixels are averaged to as many.
fn correlation(preview: &Picture, picture: &Picture) -> f64 {
    let [height, width, factor] = [preview.height, preview.width, picture.height / preview.height].map(i64::from);
    let small = |rgb: &[u8], factor: i64| {
        let rgb = Tensor::from_slice(rgb).view([height, factor, width, factor, 3]).to_kind(Kind::Double);
        let mean = rgb.mean_dim([1, 3].as_slice(), false, Kind::Double);
        &mean - mean.mean(Kind::Double)
    };
    let (a, b) = (small(&preview.rgb, 1), small(&picture.rgb, factor));
    ((&a * &b).sum(Kind::Double) / (a.norm() * b.norm())).double_value(&[])
}

#[test]
fn previews_look_like_the_pictures() {
    let bundle = Bundle::open(root().join("models/demo")).unwrap();
    let mut engine = Engine::new(Sd2::load(&bundle, F32).unwrap(), 1);
    let (day, day_picture) = draw(&mut engine, &settings("a photo of a mountain lake at dawn", 1));
    let (night, night_picture) = draw(&mut engine, &settings("a city skyline at night", 2));
    let mut preview = Preview::unknown();
    assert!(preview.of(&day).is_none(), "nothing is known yet");
    preview.learn(&day, &day_picture);
    for (what, latents, picture) in [("its own", &day, &day_picture), ("another", &night, &night_picture)] {
        let small = preview.of(latents).unwrap();
        assert_eq!((small.width, small.height), (80, 64));
        let correlation = correlation(&small, picture);
        println!("{what}: {correlation:.3}");
        assert!(correlation > 0.9, "{what}: {correlation}");
    }
    // The noise of the beginning does not pass for a picture.
    let noise = engine.begin(&settings("a city skyline at night", 2)).unwrap().latents().shallow_clone();
    let unlike = correlation(&preview.of(&noise).unwrap(), &night_picture);
    assert!(unlike.abs() < 0.5, "{unlike}");
}

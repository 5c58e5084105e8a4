//! Panoramas that follow a picture, where the Python reference says nothing: errors, work, and how well it is kept.

use std::ops::ControlFlow;
use std::sync::Arc;

use fixtures::{Copy, F32, bundle};
use panorama::{Blend, Engine, Limits, Picture, Scheduler, Settings, Sources, SyncMode, Work};
use sd2::{Bundle, Sd2};
use tch::{Kind, Tensor};

const VAE: &str = "vae/diffusion_pytorch_model.safetensors";

fn settings(width: u32, height: u32, stride: u32, sources: Sources) -> Settings {
    Settings {
        prompt: "a lake at dawn".to_owned(),
        negative_prompt: String::new(),
        width,
        height,
        guidance_scale: 4.0,
        sync_weight: 6.0,
        sync_decay_rate: 1.0,
        sync_freq: 1,
        sync_threshold: 1,
        num_inference_steps: 3,
        stride,
        seed: 2,
        loop_closure: false,
        blend: Blend::Smooth,
        seamless: false,
        sync_mode: SyncMode::Windows,
        scheduler: Scheduler::Ddim,
        sources,
    }
}

fn demo() -> Engine {
    let demo = Bundle::open(fixtures::root().join("models/demo")).unwrap();
    Engine::new(Sd2::load(&demo, F32).unwrap(), 1)
}

/// A sky over hills, as any language draws it.
fn landscape(width: u32, height: u32) -> Arc<Picture> {
    let mut rgb = Vec::new();
    for y in 0..height {
        for x in 0..width {
            let (across, down) = (f64::from(x) / f64::from(width), f64::from(y) / f64::from(height));
            let hill = 0.6 + 0.1 * (7.0 * across).sin();
            let colour =
                if down < hill { [0.5, 0.6 + 0.2 * down, 0.9 - 0.3 * down] } else { [0.3, 0.5 - 0.2 * down, 0.2] };
            rgb.extend(colour.map(|share| (255.0 * share) as u8));
        }
    }
    Arc::new(Picture { width, height, rgb })
}

fn draw(engine: &mut Engine, settings: &Settings) -> Result<(Picture, Work), String> {
    let limits = Limits { denoise: 4, synchronise: 2, ..Limits::default() };
    let drawn = panorama::run(engine, settings, limits, |_| ControlFlow::Continue(()));
    drawn.map(|drawn| drawn.expect("nobody stopped it")).map_err(|invalid| invalid.to_string())
}

/// Columns of a picture as numbers, `[height, columns, 3]`.
fn columns(picture: &Picture, from: i64, count: i64) -> Tensor {
    let size = [i64::from(picture.height), i64::from(picture.width), 3];
    Tensor::from_slice(&picture.rgb).view(size).narrow(1, from, count).to_kind(Kind::Double)
}

fn psnr(a: &Tensor, b: &Tensor) -> f64 {
    let error = (a - b).square().mean(Kind::Double).double_value(&[]);
    10.0 * (255.0_f64.powi(2) / error.max(1e-9)).log10()
}

/// What the VAE alone makes of a picture, `[height, width, 3]`.
fn round_trip(engine: &Engine, picture: &Picture) -> Tensor {
    let image = columns(picture, 0, i64::from(picture.width)).permute([2, 0, 1]).unsqueeze(0).to_kind(Kind::Float);
    let latents = engine.model().load_encoder().unwrap().latents(&(image / 255.0), i64::MAX);
    (engine.model().decoder.pictures(&latents).squeeze_dim(0).permute([1, 2, 0]) * 255.0).to_kind(Kind::Double)
}

/// How much a picture bends between a column and the next, as `evaluate` has it.
fn kink(picture: &Picture, column: i64) -> f64 {
    let [a, b, c, d] = [-1, 0, 1, 2].map(|i| columns(picture, column + i, 1));
    ((&c - &b) * 1.5 - (d - a) * 0.5).abs().mean(Kind::Double).double_value(&[])
}

/// What is kept looks as the VAE alone would make it, and what is drawn beside it joins.
#[test]
fn a_kept_picture_is_that_of_the_round_trip() {
    let mut engine = demo();
    let image = landscape(512, 512);
    let round_trip = round_trip(&engine, &image);
    let own = psnr(&round_trip, &columns(&image, 0, 512));
    assert!(own > 25.0, "the VAE itself keeps {own:.1} dB");
    let sources = Sources { image: Some(image), image_left: Some(256), ..Sources::default() };
    let settings = Settings { num_inference_steps: 6, ..settings(1024, 512, 32, sources) };
    let (picture, work) = draw(&mut engine, &settings).unwrap();
    assert_eq!(work.picture_encodes, 1);
    // Two latents at both sides pass into what is drawn.
    let kept = psnr(&columns(&picture, 256 + 16, 480), &round_trip.narrow(1, 16, 480));
    println!("the VAE keeps {own:.1} dB; what is kept is {kept:.1} dB from that");
    assert!(kept >= 30.0, "{kept:.1} dB");
    let mean = |places: &[i64]| places.iter().map(|&at| kink(&picture, at)).sum::<f64>() / places.len() as f64;
    let grid: Vec<i64> = (7..1016).step_by(8).filter(|at| ![255, 767].contains(at)).collect();
    let edges = mean(&[255, 767]) / mean(&grid);
    println!("the kink at its edges is {edges:.2} of that of the grid");
    // After six steps, of so smooth a picture; 11 where it is only kept.
    assert!(edges <= 3.0, "{edges:.2}");
}

/// The steps that a picture spares are not computed, nor is an anchor where one was given.
#[test]
fn work_is_minimal() {
    let mut engine = Engine::new(Sd2::load(&bundle("epsilon"), F32).unwrap(), 1);
    let image = || Some(landscape(128, 64));
    let window = engine.model().geometry().window_pixels() as u32;
    let mut of = |width: u32, sources: Sources, change: fn(&mut Settings)| {
        let mut settings = settings(width, window, 8, sources);
        settings.num_inference_steps = 4;
        change(&mut settings);
        draw(&mut engine, &settings).unwrap().1
    };
    // Three windows, two branches, four steps, of which one is synchronised.
    let anchored = of(2 * window, Sources { anchor_image: image(), ..Sources::default() }, |_| {});
    assert_eq!((anchored.unet_forwards, anchored.unet_backwards), (2 * (4 * 3 + 3), 2 * 3));
    assert_eq!((anchored.window_decodes, anchored.perceptual_forwards), (3, 1 + 3));
    assert_eq!((anchored.perceptual_backwards, anchored.picture_encodes), (3, 0));
    let alone = of(window, Sources { anchor_image: image(), ..Sources::default() }, |_| {});
    assert_eq!((alone.unet_forwards, alone.perceptual_backwards), (2 * (4 + 1), 1), "one window is synchronised, too");
    let unused = of(2 * window, Sources { anchor_image: image(), ..Sources::default() }, |settings| {
        settings.sync_weight = 0.0;
    });
    assert_eq!((unused.unet_forwards, unused.perceptual_forwards), (2 * 4 * 3, 0));
    let half = |settings: &mut Settings| settings.sources.strength = 0.5;
    let redrawn = of(2 * window, Sources { image: image(), ..Sources::default() }, half);
    assert_eq!((redrawn.unet_forwards, redrawn.picture_encodes), (2 * 2 * 3, 1), "two steps, and none synchronised");
    let only_anchor = of(2 * window, Sources { image: image(), strength: 1.0, ..Sources::default() }, |_| {});
    assert_eq!(
        Work { text_encodes: anchored.text_encodes, ..only_anchor },
        anchored,
        "nothing is kept, so nothing encoded"
    );
    let texts = ["a", "b", "a", "c"].map(str::to_owned).to_vec();
    let prompts = of(2 * window, Sources { prompts: texts, ..Sources::default() }, |settings| {
        settings.sync_threshold = 0;
    });
    assert_eq!((prompts.unet_forwards, prompts.text_encodes), (2 * 4 * 3, 3), "texts alone cost nothing more");
}

/// Steps by a solver with a memory go on from the middle of a schedule, too.
#[test]
fn every_scheduler_redraws() {
    let mut engine = demo();
    let image = landscape(512, 512);
    let kept = round_trip(&engine, &image);
    for scheduler in [Scheduler::Ddim, Scheduler::UniPc, Scheduler::DpmPp2m] {
        let [little, much] = [0.2, 0.8].map(|strength| {
            let sources = Sources { image: Some(Arc::clone(&image)), strength, ..Sources::default() };
            let mut settings = settings(512, 512, 32, sources);
            (settings.num_inference_steps, settings.scheduler, settings.sync_threshold) = (5, scheduler, 0);
            psnr(&columns(&draw(&mut engine, &settings).unwrap().0, 0, 512), &kept)
        });
        println!("{scheduler:?}: {little:.1} dB and {much:.1} dB to the picture");
        assert!(little > much + 3.0 && little > 20.0, "{scheduler:?}: {little:.1} dB and {much:.1} dB to the picture");
    }
}

#[test]
fn what_cannot_be_drawn_is_named() {
    let mut engine = Engine::new(Sd2::load(&bundle("epsilon"), F32).unwrap(), 1);
    let window = engine.model().geometry().window_pixels() as u32;
    let image = Some(landscape(window, window));
    let none = Sources::default;
    for (sources, says) in [
        (Sources { prompts: vec!["a".to_owned()], ..none() }, "`prompts` has one text"),
        (Sources { strength: 0.5, ..none() }, "`strength` needs an `image`"),
        (Sources { image_left: Some(0), ..none() }, "`image_left` needs an `image`"),
        (Sources { strength: f64::NAN, image: image.clone(), ..none() }, "`strength` is NaN"),
        (Sources { image: Some(landscape(3 * window, window)), ..none() }, "choose a `width` of at least"),
        (Sources { image: image.clone(), image_left: Some(2 * window), ..none() }, "`image_left` is"),
        (Sources { image: Some(landscape(2 * window, window)), ..none() }, "a `strength` of at least one step"),
    ] {
        let error = draw(&mut engine, &settings(2 * window, window, 8, sources)).unwrap_err();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn a_model_without_an_encoder_draws_all_the_rest() {
    let copy = Copy::of("epsilon");
    copy.rewrite(VAE, |tensors| tensors.retain(|name, _| !name.starts_with("encoder.")));
    let mut engine = Engine::new(Sd2::load(&Bundle::open(copy.path()).unwrap(), F32).unwrap(), 1);
    let window = engine.model().geometry().window_pixels() as u32;
    let image = Some(landscape(window, window));
    let sources = Sources { image: image.clone(), ..Sources::default() };
    let error = draw(&mut engine, &settings(2 * window, window, 8, sources)).unwrap_err();
    assert!(error.starts_with("`image` cannot be used with this model") && error.contains("`anchor_image`"), "{error}");
    let sources = Sources { anchor_image: image, ..Sources::default() };
    assert!(draw(&mut engine, &settings(2 * window, window, 8, sources)).is_ok());
}

//! Jobs: from start to picture, beside each other, canceled, and the end of the worker.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::time::Duration;

use fixtures::Copy;
use protocol::{Command, Event, Given, Input, Scheduler, Windows};
use serde_json::json;

use crate::worker::{Worker, done, input};

#[test]
fn a_job_from_start_to_picture() {
    let mut worker = Worker::start(&[]);
    let (Event::Loading { model }, _) = worker.next() else { panic!("`loading` is first") };
    assert_eq!((model.name.as_str(), model.window, model.vae_factor), ("demo", 64, 8));
    assert_eq!((model.device.as_str(), model.dtype.as_str(), model.version.len()), ("cpu", "f32", 64));
    let (Event::Ready { model: same, load_seconds, peak_memory_bytes, jobs, unusable, no_encoder }, _) = worker.next()
    else {
        panic!("`ready` is second")
    };
    assert!(same == model && load_seconds > 0.0 && peak_memory_bytes > 10 << 20 && jobs >= 1);
    assert_eq!((unusable, no_encoder), (Vec::new(), None));

    worker.run("a", input(640, 512, 2));
    let (events, rgb) = worker.until(done("a"));
    let steps: Vec<u32> = events
        .iter()
        .filter_map(|event| match event {
            Event::Progress { step, of: 2, fraction, .. } if (0.0..=1.0).contains(fraction) => Some(*step),
            _ => None,
        })
        .collect();
    assert!(steps.is_sorted() && steps.first() == Some(&0) && steps.last() == Some(&2), "{steps:?}");
    let Some(Event::Done { width: 640, height: 512, work, .. }) = events.last() else { panic!("{events:?}") };
    assert_eq!((work.unet_forwards, work.unet_backwards, work.window_decodes, work.text_encodes), (10, 2, 2, 2));
    assert_eq!(rgb.len(), 3 * 640 * 512);
    assert!(rgb.iter().any(|&byte| byte != rgb[0]), "the picture is flat");
    assert!(worker.end().success());
}

#[test]
fn a_malformed_command_is_reported_and_harmless() {
    let mut worker = Worker::ready();
    for line in ["hello", "", "[]", "{\"type\":\"fly\"}", "{\"type\":\"run\",\"job\":\"a\"}", "\u{0}\u{7f}"] {
        worker.write(line.as_bytes());
        worker.write(b"\n");
        assert!(matches!(worker.next().0, Event::Malformed { .. }), "{line:?}");
    }
    worker.run("bad", Input { width: 500, ..input(512, 512, 1) });
    let (events, _) = worker.until(|event| matches!(event, Event::Failed { .. }));
    let Some(Event::Failed { error, fatal: false, .. }) = events.last() else { panic!("{events:?}") };
    assert!(error.contains("`width`") && error.contains("500"), "{error}");
    worker.run("good", input(512, 512, 1));
    worker.until(done("good"));
}

/// Their pixels are in the frame; what is missing or left over fails the job alone.
#[test]
fn pictures_come_with_a_job() {
    let mut worker = Worker::ready();
    let run = |job: &str, width: u32| Command::Run {
        job: job.to_owned(),
        input: Box::new(Input { image: Some("https://example.com/a.png".to_owned()), ..input(640, 512, 1) }),
        pictures: vec![Given { field: "image".to_owned(), width, height: 4 }],
    };
    let error = |worker: &mut Worker| {
        let (events, _) = worker.until(|event| matches!(event, Event::Failed { .. }));
        let Some(Event::Failed { error, fatal: false, .. }) = events.into_iter().last() else { panic!("it failed") };
        error
    };
    worker.command_with(&run("short", 4), &[128; 47]);
    assert!(error(&mut worker).contains("`image` is 4x4"));
    worker.run("none", Input { anchor_image: Some("https://example.com/b.png".to_owned()), ..input(640, 512, 1) });
    assert!(error(&mut worker).contains("`anchor_image` came without its pixels"));
    worker.command_with(&run("wide", 6), &[128; 72]);
    assert!(error(&mut worker).contains("choose a `width` of at least 768"));
    worker.command_with(&run("good", 4), &[128; 48]);
    let (events, _) = worker.until(done("good"));
    let Some(Event::Done { work, .. }) = events.last() else { panic!("{events:?}") };
    assert_eq!((work.picture_encodes, work.perceptual_forwards, work.window_decodes), (1, 3, 2));
}

/// Figures of each picture, where they are asked for; the picture is the same.
#[test]
fn pictures_are_evaluated_where_that_is_asked_for() {
    let mut worker = Worker::ready();
    let wanted = Input { evaluate: true, ..input(1024, 512, 1) };
    worker.run("a", Input { stride: 32, num_outputs: 2, ..wanted.clone() });
    let (events, _) = worker.until(done("a"));
    let Some(Event::Done { figures, .. }) = events.last() else { panic!("{events:?}") };
    let [first, second] = figures[..] else { panic!("{figures:?}") };
    for figures in [first, second] {
        assert!(figures.seam.is_some() && figures.borders.is_some() && figures.row_borders.is_none(), "{figures:?}");
        assert!(figures.intra_lpips.is_some_and(|distance| distance > 0.0), "{figures:?}");
    }
    assert!(first != second);
    let mut drawn = [wanted.clone(), Input { evaluate: false, ..wanted }].map(|input| {
        worker.run("b", Input { width: 512, ..input });
        let (events, rgb) = worker.until(done("b"));
        let Some(Event::Done { figures, work, .. }) = events.last() else { panic!("{events:?}") };
        (figures.len(), *work, rgb)
    });
    assert_eq!((drawn[0].0, drawn[1].0), (1, 0));
    drawn[0].0 = 0;
    assert!(drawn[0] == drawn[1]);
}

/// That a model has no encoder is known when it is loaded, and a job that needs it fails alone.
#[test]
fn a_model_without_an_encoder_tells_so() {
    let copy = Copy::of("epsilon");
    copy.rewrite("vae/diffusion_pytorch_model.safetensors", |tensors| {
        tensors.retain(|name, _| !name.starts_with("encoder."));
    });
    let mut worker = Worker::start(&["--model", copy.path().to_str().unwrap()]);
    let (events, _) = worker.until(|event| matches!(event, Event::Ready { .. }));
    let Some(Event::Ready { no_encoder: Some(why), .. }) = events.last() else { panic!("{events:?}") };
    assert!(why.starts_with("cannot be used with this model") && why.contains("no encoder"), "{why}");
    worker.run("a", Input { stride: 8, ..input(64, 64, 1) });
    worker.until(done("a"));
}

/// What the scheduler file of a model rules out is known when it is loaded, and a job that needs it fails alone.
#[test]
fn schedulers_that_cannot_be_used_are_told() {
    let copy = Copy::of("epsilon");
    copy.configure("scheduler/scheduler_config.json", &json!({"use_karras_sigmas": true, "lower_order_final": false}));
    let mut worker = Worker::start(&["--model", copy.path().to_str().unwrap()]);
    let (events, _) = worker.until(|event| matches!(event, Event::Ready { .. }));
    let Some(Event::Ready { unusable, .. }) = events.last() else { panic!("{events:?}") };
    let [(Scheduler::UniPc, unipc), (Scheduler::DpmPp2m, dpmpp)] = &unusable[..] else { panic!("{unusable:?}") };
    for (why, key) in [(unipc, "`lower_order_final` is `false`"), (dpmpp, "`use_karras_sigmas` is `true`")] {
        assert!(
            why.contains(key)
                && why.starts_with("needs another model, or must be `ddim`")
                && why.contains("scheduler_config.json"),
            "{why}"
        );
    }
    let small = Input { stride: 8, ..input(64, 64, 1) };
    worker.run("a", Input { scheduler: Scheduler::UniPc, ..small.clone() });
    let (events, _) = worker.until(|event| matches!(event, Event::Failed { .. }));
    let error = format!("`scheduler` {unipc}");
    assert_eq!(events.last(), Some(&Event::Failed { job: "a".to_owned(), error, fatal: false }));
    worker.run("b", small);
    worker.until(done("b"));
}

#[test]
fn a_cancel_stops_a_job_and_only_that() {
    let mut worker = Worker::ready();
    worker.run("long", input(2048, 512, 200));
    worker.run("short", input(512, 512, 2));
    worker.until(|event| matches!(event, Event::Progress { job, .. } if job == "long"));
    worker.command(&Command::Cancel { job: "long".to_owned() });
    worker.command(&Command::Cancel { job: "unknown".to_owned() });
    let (events, _) = worker.until(done("short"));
    let canceled = events.iter().position(|event| *event == Event::Canceled { job: "long".to_owned() });
    let after = &events[canceled.expect("the job is canceled")..];
    assert!(!after[1..].iter().any(|event| matches!(event, Event::Progress { job, .. } if job == "long")));
}

/// A small job beside a large one waits for no more than about its own work, and neither picture changes.
#[test]
fn jobs_share_the_worker_evenly() {
    let mut worker = Worker::ready();
    worker.run("small", input(512, 512, 6));
    let (_, small_alone) = worker.until(done("small"));
    worker.run("large", input(768, 512, 4));
    let (_, large_alone) = worker.until(done("large"));

    worker.run("large", input(768, 512, 4));
    worker.run("small", input(512, 512, 6));
    let (events, small) = worker.until(done("small"));
    let of_large = events.iter().rev().find_map(|event| match event {
        Event::Progress { job, fraction, .. } if job == "large" => Some(*fraction),
        _ => None,
    });
    assert!(of_large.is_some_and(|fraction| fraction < 0.9), "the small job is not kept waiting: {of_large:?}");
    let (_, large) = worker.until(done("large"));
    for (what, together, alone) in [("small", small, small_alone), ("large", large, large_alone)] {
        let close = std::iter::zip(&together, &alone).filter(|(a, b)| a.abs_diff(**b) <= 1).count();
        assert!(close as f64 / alone.len() as f64 >= 0.9999, "{what}: {close} of {} bytes within 1", alone.len());
    }
}

#[test]
fn a_shutdown_finishes_the_jobs() {
    let mut worker = Worker::ready();
    worker.run("a", input(512, 512, 1));
    worker.command(&Command::Shutdown);
    worker.until(done("a"));
    assert!(worker.wait().success());
}

#[test]
fn the_end_of_stdin_is_the_end() {
    let mut worker = Worker::ready();
    worker.run("a", input(3072, 512, 200));
    worker.until(|event| matches!(event, Event::Progress { .. }));
    assert!(worker.end().success());
}

#[test]
fn a_worker_that_evaluates_draws_nothing() {
    let mut worker = Worker::start(&["evaluate"]);
    let (Event::Evaluator { net, window: 64, vae_factor: 8 }, _) = worker.next() else {
        panic!("the network is first")
    };
    assert_eq!((net.model.as_str(), &net.channels[..], net.version.len()), ("demo", &[8, 16, 32, 64, 64][..], 64));
    let (width, height) = (1024, 512);
    // Two squares that differ, with a step between them.
    let row: Vec<u8> = (0..width).flat_map(|x: u32| [(x / 8 % 7) as u8, (x / 512 * 90) as u8, 7]).collect();
    let windows = Some(Windows { stride: 16, loop_closure: false, seamless: false });
    let evaluate = |job: &str| Command::Evaluate { job: job.to_owned(), width, height, windows };
    for (job, rgb) in [("good", row.repeat(height as usize)), ("short", row)] {
        worker.command_with(&evaluate(job), &rgb);
        match (job, worker.next().0) {
            ("good", Event::Evaluated { figures, .. }) => {
                assert!(figures.seam > Some(10.0) && figures.borders > Some(1.0), "{figures:?}");
                assert!(figures.intra_lpips > Some(0.0) && figures.row_borders.is_none(), "{figures:?}");
            }
            ("short", Event::Failed { error, fatal: false, .. }) => assert!(error.contains("1024x512"), "{error}"),
            (job, event) => panic!("{job}: {event:?}"),
        }
    }
    worker.run("a", input(512, 512, 1));
    assert!(matches!(worker.next().0, Event::Failed { fatal: false, .. }));
    assert!(worker.end().success());
}

#[test]
fn a_missing_model_is_an_event_and_a_status() {
    let mut worker = Worker::start(&["--model", "no/such/folder"]);
    let (Event::LoadFailed { error }, _) = worker.next() else { panic!("nothing to load") };
    assert!(error.contains("no/such/folder"), "{error}");
    assert!(!worker.wait().success());
}

/// A folder in the layout of a model, one of whose files blocks whoever opens it.
fn model_that_hangs() -> PathBuf {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo");
    let folder = std::env::temp_dir().join(format!("hangs-{}", std::process::id()));
    for part in ["perceptual", "scheduler", "text_encoder", "tokenizer", "unet", "vae"] {
        fs::create_dir_all(folder.join(part)).unwrap();
        for file in demo.join(part).read_dir().unwrap() {
            let name = Path::new(part).join(file.unwrap().file_name());
            fs::copy(demo.join(&name), folder.join(&name)).unwrap();
        }
    }
    fs::copy(demo.join("model_index.json"), folder.join("model_index.json")).unwrap();
    let blocks = folder.join("unet/config.json");
    fs::remove_file(&blocks).unwrap();
    assert!(Process::new("mkfifo").arg(&blocks).status().unwrap().success());
    folder
}

#[test]
fn a_worker_that_hangs_ends_with_its_server() {
    let folder = model_that_hangs();
    let mut worker = Worker::start(&["--model", folder.to_str().unwrap()]);
    // Whether it is at the file that blocks yet makes no difference: it gets there.
    std::thread::sleep(Duration::from_millis(100));
    assert!(worker.is_running(), "it hangs");
    assert_eq!(worker.end().signal(), Some(9));
    fs::remove_dir_all(folder).unwrap();
}

/// Several pictures of a job are those of as many jobs, drawn in common batches, with the work of all.
#[test]
fn pictures_of_a_job_share_batches() {
    let mut worker = Worker::ready();
    let mut alone = Vec::new();
    for seed in [2, 3, 4] {
        worker.run("alone", Input { seed, ..input(640, 512, 3) });
        let (events, rgb) = worker.until(done("alone"));
        let Some(Event::Done { work, .. }) = events.last() else { panic!("{events:?}") };
        alone.push((*work, rgb));
    }
    worker.run("several", Input { num_outputs: 3, ..input(640, 512, 3) });
    let (mut pictures, mut fractions, mut widest) = (Vec::new(), Vec::new(), 0);
    let all = loop {
        let (event, bytes) = worker.next();
        match event {
            Event::Picture { job, n, width: 640, height: 512 } if job == "several" => pictures.push((n, bytes)),
            Event::Progress { fraction, .. } => fractions.push(fraction),
            Event::Batch { windows, .. } => widest = widest.max(windows),
            Event::Done { work, .. } => {
                assert!(bytes.is_empty(), "the pictures came before");
                break work;
            }
            Event::Log { .. } => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(fractions.is_sorted() && fractions.iter().all(|fraction| (0.0..=1.0).contains(fraction)), "{fractions:?}");
    // A panorama has two windows; three of them have six.
    assert!(widest > 2, "no batch has windows of several pictures");
    assert_eq!(all.unet_forwards, alone.iter().map(|(work, _)| work.unet_forwards).sum::<u64>());
    assert_eq!(all.unet_backwards, alone.iter().map(|(work, _)| work.unet_backwards).sum::<u64>());
    pictures.sort_by_key(|(n, _)| *n);
    assert_eq!(pictures.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [0, 1, 2]);
    for ((n, picture), (_, alone)) in pictures.iter().zip(&alone) {
        let far = picture.iter().zip(alone).filter(|(a, b)| a.abs_diff(**b) > 1).count();
        assert!(picture.len() == alone.len() && far * 1000 < alone.len(), "picture {n}: {far} bytes differ");
    }
    assert!(pictures[0].1 != pictures[1].1);
    // A cancel stops all of them.
    worker.run("long", Input { num_outputs: 2, ..input(512, 512, 200) });
    worker.until(|event| matches!(event, Event::Progress { job, .. } if job == "long"));
    worker.command(&Command::Cancel { job: "long".to_owned() });
    worker.until(|event| *event == Event::Canceled { job: "long".to_owned() });
}

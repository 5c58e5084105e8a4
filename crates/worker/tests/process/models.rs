//! Models as people have them, and what is said of a text.

use fixtures::Twins;
use protocol::{Event, Input};
use serde_json::json;

use crate::worker::{Worker, done, input};

/// Latents along a window of the twins in these tests.
const WINDOW: u32 = 16;

/// The picture of a worker that is started so.
fn picture(arguments: &[&str]) -> Vec<u8> {
    let mut worker = Worker::ready_with(arguments);
    // One window: how many go in a batch depends on the speed of the machine, and the last bits on that.
    worker.run("a", Input { stride: 8, ..input(8 * WINDOW, 8 * WINDOW, 2) });
    worker.until(done("a")).1
}

/// A checkpoint in one file and the folder that it would be draw the same picture, byte for byte, whatever the weights.
#[test]
fn one_file_draws_what_its_folder_draws() {
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos().into();
    for family in ["sd1", "sd2"] {
        let twins = Twins::new(family, seed);
        twins.configure("unet/config.json", &json!({ "sample_size": WINDOW }));
        let folder = twins.folder().to_str().unwrap().to_owned();
        let mut before = Vec::new();
        for (prediction, metadata) in [("epsilon", &[][..]), ("v_prediction", &[("modelspec.prediction_type", "v")])] {
            twins.configure("scheduler/scheduler_config.json", &json!({ "prediction_type": prediction }));
            let expected = picture(&["--model", &folder]);
            let file = twins.file(metadata);
            let file = file.to_str().unwrap();
            let window = WINDOW.to_string();
            let from_file = ["--model", file, "--window", &window];
            let told = [&from_file[..], &["--prediction-type", prediction]].concat();
            let what = format!("{family}, {prediction}, seed {seed}");
            assert!(picture(&told) == expected, "{what}: by the flag");
            if !metadata.is_empty() {
                assert!(picture(&from_file) == expected, "{what}: by the metadata");
            }
            assert!(expected.iter().any(|&byte| byte != expected[0]), "{what}: the picture is flat");
            assert!(before != expected, "{what}: both forms draw the same");
            before = expected;
        }
    }
}

/// What is left out of a prompt is a line of its log.
#[test]
fn a_long_prompt_is_a_line_of_the_log() {
    let mut worker = Worker::ready();
    let long = "a photo of a castle on a hill, ".repeat(30);
    let logs = |worker: &mut Worker, input: Input| -> Vec<String> {
        worker.run("a", input);
        let (events, _) = worker.until(done("a"));
        let lines = events.into_iter().filter_map(|event| match event {
            Event::Log { job, line } if job == "a" => Some(line),
            _ => None,
        });
        lines.collect()
    };
    let one = input(512, 512, 1);
    assert_eq!(logs(&mut worker, Input { prompt: "a castle".to_owned(), ..one.clone() }), [""; 0]);
    let says = |name: &str| {
        format!(
            "`{name}` has 270 tokens, and the model reads 75; what is left out begins with \"a castle on a hill, a \
             photo of a castle on a hill, a photo o...\""
        )
    };
    assert_eq!(logs(&mut worker, Input { prompt: long.clone(), ..one.clone() }), [says("prompt")]);
    let both = Input { prompt: long.clone(), negative_prompt: long, ..one };
    assert_eq!(logs(&mut worker, both), [says("prompt"), says("negative_prompt")]);
}

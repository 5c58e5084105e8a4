//! `syncdiffusion generate`.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

fn generate(arguments: &[&str], dir: &std::path::Path) -> Command {
    let mut command = Command::new(tests::binary());
    command.arg("generate").arg("--worker").arg(tests::stand_in()).args(arguments).current_dir(dir);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(arguments: &[&str]) -> (Output, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (generate(arguments, dir.path()).output().unwrap(), dir)
}

fn files(dir: &tempfile::TempDir) -> Vec<String> {
    dir.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_picture_is_made() {
    let (output, dir) = run(&["--prompt", "a", "--num-inference-steps", "2"]);
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with("wrote `out.png`: 2048x512, seed 2, "), "{said}");
    assert_eq!(files(&dir), ["out.png"]);
    let tells = |dir: &tempfile::TempDir| {
        let png = std::fs::read(dir.path().join("out.png")).unwrap();
        png.windows(10).any(|part| part == b"parameters" || part == b"com.adobe.")
    };
    assert!(tells(&dir));
    let (output, dir) = run(&["--prompt", "a", "--num-inference-steps", "2", "--no-metadata"]);
    assert!(output.status.success() && !tells(&dir), "{output:?}");
}

#[test]
fn json_is_the_last_line() {
    let arguments = [
        "--prompt",
        "-a dash",
        "--negative-prompt",
        "b",
        "--width",
        "1024",
        "--height",
        "512",
        "--guidance-scale",
        "7",
        "--sync-weight",
        "20.0",
        "--sync-decay-rate",
        "0.9",
        "--sync-freq",
        "2",
        "--sync-threshold",
        "3",
        "--num-inference-steps",
        "2",
        "--stride",
        "32",
        "--seed",
        "18446744073709551615",
        "--loop-closure",
        "--device",
        "cpu",
        "--dtype",
        "f32",
        "--output",
        "x.png",
        "--json",
    ];
    let (output, dir) = run(&arguments);
    assert!(output.status.success(), "{output:?}");
    let line = String::from_utf8(output.stdout).unwrap().lines().last().unwrap().to_owned();
    let json: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(json["seed"], u64::MAX);
    assert_eq!((&json["output"], &json["width"], &json["height"]), (&"x.png".into(), &1024.into(), &512.into()));
    assert_eq!(
        (&json["device"], &json["dtype"], &json["work"]["unet_forwards"]),
        (&"cpu".into(), &"f32".into(), &52.into())
    );
    for key in ["seconds", "load_seconds", "peak_memory_bytes"] {
        assert!(json[key].is_number(), "{key}");
    }
    for key in [
        "unet_backwards",
        "window_decodes",
        "window_decode_backwards",
        "perceptual_forwards",
        "perceptual_backwards",
        "text_encodes",
    ] {
        assert!(json["work"][key].is_u64(), "{key}");
    }
    assert_eq!(files(&dir), ["x.png"]);
}

#[test]
fn a_picture_is_measured_when_asked_for() {
    // The stand-in answers with the first pixel, which has the seed in its blue channel.
    let arguments = ["--prompt", "a", "--num-inference-steps", "2", "--seed", "30", "--evaluate"];
    let (output, _dir) = run(&arguments);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.contains("\nseam 0.000, borders 0.000, Intra-LPIPS 0.300, "), "{said}");
    let (output, _dir) = run(&[&arguments[..], &["--json", "--no-metadata"]].concat());
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let figures = &json["figures"];
    assert_eq!((&figures["borders"], &figures["intra_lpips"]), (&0.0.into(), &0.3.into()), "the stride is known");
    assert_eq!(figures["net"]["model"], "demo");
    let (output, _dir) = run(&["--prompt", "a", "--num-inference-steps", "2", "--json"]);
    assert!(serde_json::from_slice::<Value>(&output.stdout).unwrap().get("figures").is_none());
}

#[test]
fn inputs_are_rejected_with_the_messages_of_the_server() {
    let refused = |arguments: &[&str]| {
        let (output, dir) = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(files(&dir).is_empty());
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(
        refused(&["--prompt", "a", "--width", "1000", "--sync-freq", "0", "--loop-closure", "maybe"]),
        "loop_closure: \"maybe\" is not of type \"boolean\"\nsync_freq: 0 is less than the minimum of 1\n\
         width: 1000 is not a multiple of 128 (8 * stride 16); the nearest are 896 and 1024\n"
    );
    assert!(refused(&[]).starts_with("prompt: Field required\n"));
    assert_eq!(
        refused(&["--model", ".", "--prompt", "a", "--height", "768", "--loop-closure", "true"]),
        "height: 768 is not the height of one window, as `loop_closure` needs; 512 is\n",
        "the geometry of any other model comes from its worker"
    );
    assert!(refused(&["--prompt", "a", "--steps", "3"]).contains("unexpected argument"));
}

#[test]
fn failures_are_reported() {
    let (output, _dir) = run(&["--prompt", "fail"]);
    assert_eq!(
        (output.status.code(), String::from_utf8(output.stderr).unwrap().as_str()),
        (Some(1), "error: the stand-in was told to fail\n")
    );
    let (output, _dir) = run(&["--prompt", "a", "--output", "none/out.png"]);
    assert!(String::from_utf8(output.stderr).unwrap().contains("there is no folder `none`"));
    let (output, _dir) = run(&["--prompt", "crash"]);
    assert!(String::from_utf8(output.stderr).unwrap().contains("the worker ended: exit status: 3"));
}

#[test]
fn an_interrupt_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let child = generate(&["--prompt", "step=100"], dir.path()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert!(files(&dir).is_empty());
}

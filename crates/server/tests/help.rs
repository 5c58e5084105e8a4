//! The command line describes itself. Because this file is an integration test, `cargo test` builds the binary, which
//! the black-box tests of the workspace need.

use std::process::Command;

fn help(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_syncdiffusion")).args(arguments).output().expect("the binary runs");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("help is text")
}

#[test]
fn every_input_has_a_flag_with_its_bounds() {
    let help = help(&["generate", "--help"]);
    for flag in [
        "--prompt",
        "--negative-prompt",
        "--width",
        "--height",
        "--guidance-scale",
        "--sync-weight",
        "--sync-decay-rate",
        "--sync-freq",
        "--sync-threshold",
        "--num-inference-steps",
        "--stride",
        "--seed",
        "--loop-closure",
    ] {
        assert!(help.contains(&format!("{flag} ")) || help.contains(&format!("{flag}[")), "{flag}\n{help}");
    }
    let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "512 to 3072",
        "[default: 2048, or the nearest that the model can draw]",
        "[default: 512, or the nearest that the model can draw]",
        "[default: 16, or the nearest that the model can draw]",
        "[default: 50]",
    ] {
        assert!(words.contains(part), "{part}\n{help}");
    }
}

#[test]
fn a_malformed_level_of_the_log_is_refused() {
    for name in ["COG_LOG_LEVEL", "RUST_LOG"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_syncdiffusion"));
        let output = command.args(["documents", "no/such/folder"]).env(name, "loud").output().expect("the binary runs");
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && message.contains("loud") && message.contains("`debug`"), "{message}");
    }
}

#[test]
fn the_server_lists_its_flags() {
    let help = help(&["serve", "--help"]);
    for flag in ["--host", "--port", "--model", "--device", "--dtype", "--data-dir", "--queue-size", "--grace"] {
        assert!(help.contains(flag), "{flag}\n{help}");
    }
}

//! The command line describes itself. That this file is an integration test also makes `cargo test` build the binary, which the black-box tests of
//! the workspace then find.

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
    assert!(help.contains("512 to 3072") && help.contains("[default: 2048]"), "{help}");
}

#[test]
fn a_level_of_the_log_that_is_none_is_refused() {
    for name in ["COG_LOG_LEVEL", "RUST_LOG"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_syncdiffusion"));
        let output = command.args(["documents", "no/such/folder"]).env(name, "loud").output().expect("the binary runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("loud") && said.contains("`debug`"), "{said}");
    }
}

#[test]
fn the_server_tells_its_flags() {
    let help = help(&["serve", "--help"]);
    for flag in ["--host", "--port", "--model", "--device", "--dtype", "--data-dir", "--queue-size", "--grace"] {
        assert!(help.contains(flag), "{flag}\n{help}");
    }
}

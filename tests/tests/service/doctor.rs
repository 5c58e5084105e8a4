//! `syncdiffusion doctor`.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Whether it succeeded, and its report.
fn doctor(data: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> (bool, Value) {
    let mut command = Command::new(tests::binary());
    command.args(["doctor", "--json", "--host", "127.0.0.1", "--port", "0", "--worker"]).arg(tests::stand_in());
    command.arg("--data-dir").arg(data).args(arguments).envs(environment.iter().copied());
    let output = command.output().unwrap();
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.success(), report)
}

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no `{name}` in {report}"))
}

#[test]
fn a_sound_machine_passes() {
    let dir = tempfile::tempdir().unwrap();
    let (well, report) = doctor(&dir.path().join("not/yet"), &[], &[]);
    assert!(well && report["ok"] == true, "{report}");
    let names: Vec<&str> =
        report["checks"].as_array().unwrap().iter().map(|check| check["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["libtorch", "device", "memory", "model", "data", "port", "access", "files"]);
    assert!(check(&report, "libtorch")["found"].as_str().unwrap().contains("2.11.0"));
    assert_eq!(dir.path().read_dir().unwrap().count(), 0, "it writes nothing");
}

#[test]
fn every_problem_comes_with_a_fix() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let model = dir.path().join("model");
    std::fs::create_dir(&model).unwrap();
    let damaged = dir.path().join("damaged");
    std::fs::create_dir(&damaged).unwrap();
    std::fs::write(damaged.join("predictions.sqlite"), [b'x'; 5000]).unwrap();
    let (model, file, damaged) = (model.to_str().unwrap(), file.to_str().unwrap(), damaged.to_str().unwrap());
    let cuda = r#"{"libtorch":"2.11.0","cuda":{"available":true,"why":null,"devices":["a GPU"]},"cpu":{"threads":1,"features":[]},"auto":{"device":"cuda:0","dtype":"f16"},"memory":{"available":1}}"#;
    let broken = r#"{"libtorch":"2.11.0","cuda":{"available":false,"why":null,"devices":[]},"cpu":{"threads":1,"features":[]},"auto":{"device":"cpu","dtype":"f32"},"memory":{"available":1},"model":{"problem":"the model has no `unet/config.json`"}}"#;
    for (name, arguments, environment, words) in [
        ("libtorch", vec!["--worker", "/nowhere"], vec![], "cannot start the worker `/nowhere`"),
        ("libtorch", vec![], vec![("STAND_IN_DOCTOR", "nonsense")], "cannot be read"),
        ("device", vec!["--device", "cuda"], vec![], "the stand-in has none"),
        ("device", vec!["--device", "cuda:1"], vec![("STAND_IN_DOCTOR", cuda)], "the number of devices is 1"),
        ("model", vec!["--model", "no-such-model"], vec![], "weights fetch no-such-model"),
        ("model", vec!["--model", model], vec![("STAND_IN_DOCTOR", broken)], "`unet/config.json`"),
        ("data", vec!["--data-dir", file], vec![], "cannot be written"),
        ("data", vec!["--data-dir", damaged], vec![], "file is not a database"),
        ("port", vec!["--port", &port], vec![], "cannot listen on"),
        ("access", vec!["--api-token-file", "/nowhere"], vec![], "cannot read `/nowhere`"),
    ] {
        let (well, report) = doctor(dir.path(), &arguments, &environment);
        let found = check(&report, name);
        assert!(!well && report["ok"] == false, "{arguments:?}: {report}");
        assert_eq!(found["verdict"], "problem", "{arguments:?}: {found}");
        assert!(found["found"].as_str().unwrap().contains(words), "{arguments:?}: {found}");
        assert!(found["do"].as_str().is_some_and(|advice| !advice.is_empty()), "{arguments:?}: {found}");
    }
}

#[test]
fn warnings_do_not_fail() {
    let dir = tempfile::tempdir().unwrap();
    for (name, arguments) in [
        ("access", ["--host", "0.0.0.0"]),
        ("data", ["--data-dir", "none"]),
        ("files", ["--max-connections", "100000000"]),
    ] {
        let (well, report) = doctor(dir.path(), &arguments, &[]);
        assert!(well, "{arguments:?}: {report}");
        let found = check(&report, name);
        assert!(found["verdict"] == "warning" && found["do"].is_string(), "{arguments:?}: {found}");
    }
}

#[test]
fn the_report_is_readable() {
    let mut command = Command::new(tests::binary());
    command
        .args(["doctor", "--host", "0.0.0.0", "--port", "0", "--data-dir", "none", "--worker"])
        .arg(tests::stand_in());
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("ok       libtorch  libtorch 2.11.0\n"), "{said}");
    assert!(said.contains("warning  access    everybody") && said.contains("-> set `--api-token`"), "{said}");
    assert!(said.ends_with("`syncdiffusion serve` should work.\n"), "{said}");
}

//! The half of `scripts/gpu/run.sh` that a CPU can run without Python packages, so that it does not break before a GPU
//! is there. `make test-gpu` runs all of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The folder of the programs that were built with this test.
fn programs() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let programs = test.ancestors().nth(2).unwrap();
    for program in ["syncdiffusion-worker", "examples/gpu"] {
        let built = programs.join(program).exists();
        assert!(built, "`{program}` is missing: `cargo build --release --workspace --bins --examples` builds it");
    }
    programs.to_owned()
}

#[test]
fn the_script_measures_a_cpu() {
    let (root, folder) = (fixtures::root(), tempfile::tempdir().unwrap());
    let (packed, results) = (folder.path().join("gpu"), folder.path().join("results"));
    let pack = Command::new(root.join("scripts/gpu/pack.sh"))
        .arg("--folder")
        .arg(&packed)
        .env("PROGRAMS", programs())
        .output()
        .unwrap();
    assert!(pack.status.success(), "{}", String::from_utf8_lossy(&pack.stderr));
    let libtorch = std::env::var_os("LIBTORCH").map_or_else(|| root.join(".libtorch/torch"), PathBuf::from);
    let stages = ["doctor", "job", "check", "sweep", "micro"];
    let run = Command::new(packed.join("run.sh"))
        .env("DEVICE", "cpu")
        .env("LIBTORCH", libtorch)
        .env("MODEL", packed.join("fixtures/bundles/epsilon"))
        .env("SIZE", "96x64")
        .env("STAGES", stages.join(" "))
        .env("OUT", &results)
        .output()
        .unwrap();
    let log = |stage: &str| fs::read_to_string(results.join(format!("{stage}.log"))).unwrap_or_default();
    let lines = fs::read_to_string(results.join("results.jsonl")).unwrap();
    let records: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |record: &str| records.iter().filter(|line| line["record"] == record).collect::<Vec<_>>();
    for (stage, record) in stages.iter().zip(of("stage")) {
        assert_eq!((&record["name"], &record["code"]), (&Value::from(*stage), &Value::from(0)), "{}", log(stage));
        assert!(!log(stage).contains("failed: gpu"), "{}", log(stage));
    }
    assert_eq!(of("stage").len(), stages.len());
    // Three bundles in three dtypes, of which f32 had to be exact.
    assert_eq!(of("check").len(), 9);
    assert!(of("micro").iter().all(|line| line["error"].is_null()), "{}", log("micro"));
    for job in of("job") {
        assert_eq!(job["flat"], Value::from(false), "{job}");
    }
    let table = String::from_utf8(run.stdout).unwrap();
    assert_eq!(table, read(&results.join("table.md")));
    for part in [
        "| sweep: upsampling four | 96x64 |",
        "| epsilon | bf16 | bf16 |",
        "| convolutions in f16, TFLOP/s | 500 | 92 |",
    ] {
        assert!(table.contains(part), "`{part}` is not in:\n{table}");
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

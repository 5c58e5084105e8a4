//! The fixtures that the Python reference made; see `tests/fixtures/README.md`.
#![allow(unreachable_pub, dead_code, reason = "a module of several test files, each of which uses a part of it")]

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use sd2::{Bundle, Placement};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

/// The bundles with random weights.
pub const BUNDLES: [&str; 3] = ["epsilon", "v", "sharded"];

/// Largest relative error of anything computed in fp32.
pub const TOLERANCE: f64 = 1e-4;

/// fp32 on the CPU.
pub const F32: Placement = Placement::new(Device::Cpu, Kind::Float);

/// A file or folder of the fixtures: those of the repository, or those in `FIXTURES`.
pub fn path(inside: &str) -> PathBuf {
    let root = std::env::var_os("FIXTURES").map_or_else(|| root().join("tests/fixtures"), PathBuf::from);
    root.join(inside)
}

/// The root of the repository.
pub fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// A JSON file of the fixtures.
pub fn json(inside: &str) -> Value {
    serde_json::from_slice(&fs::read(path(inside)).unwrap()).unwrap()
}

/// A bundle of the fixtures.
pub fn bundle(name: &str) -> Bundle {
    Bundle::open(path(&format!("bundles/{name}"))).unwrap()
}

/// The cases of one bundle.
pub struct Cases {
    cases: Value,
    tensors: HashMap<String, Tensor>,
}

impl Cases {
    pub fn of(bundle: &str) -> Self {
        let tensors = Tensor::read_safetensors(path(&format!("{bundle}/cases.safetensors"))).unwrap();
        Self { cases: json(&format!("{bundle}/cases.json")), tensors: tensors.into_iter().collect() }
    }

    /// The cases of a list, of which there are some.
    pub fn list(&self, name: &str) -> &Vec<Value> {
        let list = self.cases[name].as_array().unwrap();
        assert!(!list.is_empty(), "no cases of {name}");
        list
    }

    /// The tensor that a field of a case names.
    pub fn tensor(&self, case: &Value, field: &str) -> &Tensor {
        &self.tensors[case[field].as_str().unwrap()]
    }

    /// The tensor that a field beside the lists names.
    pub fn top(&self, field: &str) -> &Tensor {
        self.tensor(&self.cases, field)
    }

    pub fn number(&self, field: &str) -> f64 {
        self.cases[field].as_f64().unwrap()
    }
}

/// `|a - b| / |b|`
pub fn relative_error(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    let norm = |x: Tensor| x.to_kind(Kind::Double).norm().double_value(&[]);
    norm(a - b) / norm(b.shallow_clone()).max(1e-30)
}

/// Fails where `a` is not `b` up to rounding.
#[track_caller]
pub fn assert_close(what: &str, a: &Tensor, b: &Tensor) {
    assert_within(TOLERANCE, what, a, b);
}

/// Fails where the relative error of `a` to `b` is not below a limit.
#[track_caller]
pub fn assert_within(limit: f64, what: &str, a: &Tensor, b: &Tensor) {
    let error = relative_error(a, b);
    println!("{what}: relative error {error:.1e}");
    assert!(error < limit, "{what}: relative error {error:.1e}");
}

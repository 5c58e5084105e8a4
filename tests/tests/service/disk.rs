//! A disk that fails or is full: what was refused is not done, what runs ends when it can be stored, and nobody is
//! notified of an end before.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use tests::{Receiver, Server};

/// A disk whose writes can be made to fail and to work again.
trait BadDisk {
    fn fail(&self);
    fn work(&self);
}

/// One that fails with EIO: a library that is preloaded into the server.
struct Broken(PathBuf);

impl Broken {
    fn new(dir: &Path) -> (Self, Vec<(&'static str, String)>) {
        let (library, switch) = (dir.join("failing_disk.so"), dir.join("fails"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/failing_disk.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl");
        assert!(compiler.status().expect("a C compiler").success());
        let show = |path: &Path| path.display().to_string();
        let environment = vec![("LD_PRELOAD", show(&library)), ("FAILING_DISK", show(&switch))];
        (Self(switch), environment)
    }
}

impl BadDisk for Broken {
    fn fail(&self) {
        std::fs::write(&self.0, "").unwrap();
    }

    fn work(&self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

/// One of some MiB, which can be filled. Only root can make it.
struct Small(PathBuf);

impl Small {
    fn new(dir: &Path) -> Option<Self> {
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=3m", "none"]).arg(dir).output();
        if mount.is_ok_and(|mount| mount.status.success()) {
            return Some(Self(dir.to_owned()));
        }
        eprintln!("NOT RUN: a test of a full disk, because only root can mount a tmpfs here");
        None
    }
}

impl BadDisk for Small {
    fn fail(&self) {
        let mut file = std::fs::File::create(self.0.join("fill")).unwrap();
        for size in [1 << 16, 1 << 12, 1 << 10] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
    }

    fn work(&self) {
        std::fs::remove_file(self.0.join("fill")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Ends a prediction while nothing can be stored.
async fn ends_while_it_fails(disk: &dyn BadDisk, data: &Path, environment: &[(&'static str, String)]) -> Server {
    let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let receiver = Receiver::start(&[]).await;
    let server = Server::launch_in(data, &[], &environment);
    server.until_health(&["READY"]).await;
    let job = |id: &str, step: u32| {
        json!({"id": id, "webhook": format!("{}/{id}", receiver.url), "webhook_events_filter": ["completed"],
            "input": {"prompt": format!("step={step}"), "num_inference_steps": 4, "width": 512}})
    };
    server.predict_async(&job("old", 0)).await;
    server.ended("old").await;
    receiver.wait(|sent| sent.len() == 1).await;
    assert_eq!(server.predict_async(&job("runs", 150)).await.status, 202);
    server.until("/predictions/runs", |is| is["status"] == "processing").await;
    disk.fail();
    server.logged("the store cannot be written").await;
    tokio::time::sleep(Duration::from_millis(500)).await;

    assert_eq!(server.get("/predictions/runs").await.json["status"], "processing", "its end is not stored");
    assert_eq!(receiver.sent().len(), 1, "and so nobody is notified");
    let refused = server.predict_async(&job("new", 0)).await;
    assert_eq!(refused.status, 503, "{}", refused.text);
    assert_eq!(server.get("/ready").await.status, 503);
    assert_eq!(server.get("/predictions/old").await.json["status"], "succeeded", "what is there can be read");

    disk.work();
    assert_eq!(server.ended("runs").await["status"], "succeeded");
    receiver.wait(|sent| sent.len() == 2).await;
    assert_eq!(server.get("/predictions/runs/output").await.status, 200);
    server.until_health(&["READY"]).await;
    assert_eq!(server.get("/predictions/new").await.status, 404, "what was refused is not done");
    assert_eq!(server.predict_async(&job("new", 0)).await.status, 202);
    server.ended("new").await;
    server
}

#[tokio::test]
async fn an_end_waits_for_a_disk_that_fails() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, environment) = Broken::new(dir.path());
    ends_while_it_fails(&disk, &dir.path().join("data"), &environment).await;
}

#[tokio::test]
async fn an_end_waits_for_room_and_delete_makes_it() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = Small::new(dir.path()) else { return };
    let server = ends_while_it_fails(&disk, &dir.path().join("data"), &[]).await;
    disk.fail();
    assert_eq!(server.send(server.request("DELETE", "/predictions/old")).await.status, 204);
    assert_eq!(server.get("/predictions/old").await.status, 404);
    disk.work();
    server.until_health(&["READY"]).await;
}

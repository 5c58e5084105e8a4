//! Servers and workers that are killed at random moments while predictions wait, run and end: accepted ones are not
//! lost, ended ones do not change, and every webhook arrives.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tests::{Dice, Receiver, Server};

#[tokio::test]
async fn a_few_kills() {
    kill(12, 7).await;
}

#[tokio::test]
#[ignore = "takes minutes; `make soak` runs it"]
async fn hundreds_of_kills() {
    let seed = std::env::var("SOAK_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    kill(400, seed).await;
}

async fn kill(rounds: u64, seed: u64) {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[]).await;
    let mut dice = Dice(seed * 0x9e37_79b9 + 1);
    let mut accepted: Vec<String> = Vec::new();
    let mut ended: BTreeMap<String, Value> = BTreeMap::new();
    let mut server = launch(dir.path()).await;
    for round in 0..rounds {
        for n in 0..dice.roll(4) {
            let id = format!("k{round}-{n}");
            let steps = 1 + dice.roll(20);
            let body = json!({"id": id, "webhook": format!("{}/{id}", receiver.url), "webhook_events_filter": ["completed"],
                "input": {"prompt": "step=3", "num_inference_steps": steps, "width": 512}});
            assert_eq!(server.predict_async(&body).await.status, 202, "{}", server.log());
            accepted.push(id);
        }
        // An ended prediction must never change.
        for id in accepted.iter().rev().take(3) {
            let is = server.get(&format!("/predictions/{id}")).await.json;
            if ["succeeded", "failed"].iter().any(|end| is["status"] == *end) {
                ended.insert(id.clone(), is);
            }
        }
        tokio::time::sleep(Duration::from_micros(dice.roll(120_000))).await;
        if dice.roll(3) == 0 {
            signal_worker(&server, "KILL");
        } else {
            server.kill();
            server = launch(dir.path()).await;
        }
    }
    let mut starts = Vec::new();
    let mut failed = 0;
    for id in &accepted {
        let is = server.ended(id).await;
        if is["status"] == "failed" {
            let error = is["error"].as_str().unwrap();
            assert!(error.contains("interrupted 2 times") || error.contains("was lost 2 times"), "{id}: {error}");
            failed += 1;
        } else {
            assert_eq!(is["status"], "succeeded", "{is}");
            assert!(is["output"].as_str().unwrap().starts_with("data:image/png;base64,"), "{is}");
        }
        if let Some(before) = ended.get(id) {
            assert_eq!(&is, before, "an ended prediction does not change");
        }
        starts.push(is["started_at"].as_str().unwrap_or_default().to_owned());
    }
    assert!(starts.is_sorted(), "the order was kept: {starts:?}");
    assert!(failed < accepted.len(), "all {failed} failed");
    receiver.wait(|sent| accepted.iter().all(|id| sent.iter().any(|sent| sent.path == format!("/{id}")))).await;
    eprintln!("{rounds} kills, {} accepted, {failed} failed for being interrupted twice", accepted.len());
}

/// Starts a server on the folder and waits until it is ready.
async fn launch(data: &Path) -> Server {
    let server = Server::launch_in(data, &["--queue-size", "100000"], &[]);
    server.until_health(&["READY", "BUSY"]).await;
    server
}

/// Sends a signal to the worker of a server, if it has one at this moment.
pub(crate) fn signal_worker(server: &Server, signal: &str) {
    let of_server = |stat: String| {
        let (_, rest) = stat.rsplit_once(')')?;
        (rest.split_whitespace().nth(1)?.parse() == Ok(server.pid())).then_some(())
    };
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let stat = std::fs::read_to_string(entry.path().join("stat"));
        if stat.ok().and_then(of_server).is_some() {
            let pid = entry.file_name().into_string().unwrap();
            let _ = std::process::Command::new("kill").args([&format!("-{signal}"), &pid]).status();
        }
    }
}

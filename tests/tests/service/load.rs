//! Many clients that post, poll, cancel and disconnect at once: nothing is lost, and nothing leaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tests::{Dice, Server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_for_a_moment() {
    load(40, Duration::from_secs(2), false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; `make soak` runs it"]
async fn two_hundred_clients_for_minutes() {
    let seconds = std::env::var("SOAK_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(180);
    load(200, Duration::from_secs(seconds), true).await;
}

async fn load(clients: u64, time: Duration, demanding: bool) {
    let server = Arc::new(Server::start(&["--queue-size", "1000", "--keep-count", "200", "--log", "warn"]).await);
    let until = Instant::now() + time;
    // A thread keeps one core busy meanwhile.
    let busy = Arc::new(AtomicBool::new(demanding));
    let burner = std::thread::spawn({
        let busy = Arc::clone(&busy);
        move || while busy.load(Ordering::Relaxed) {}
    });
    let settled = tokio::spawn({
        let server = Arc::clone(&server);
        async move {
            tokio::time::sleep(time / 3).await;
            memory(&server)
        }
    });
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let server = Arc::clone(&server);
            tokio::spawn(async move { visit(&server, client, until).await })
        })
        .collect();
    let (mut accepted, mut latencies) = (Vec::new(), Vec::new());
    for task in tasks {
        let (ids, gets) = task.await.unwrap();
        accepted.extend(ids);
        latencies.extend(gets);
    }
    busy.store(false, Ordering::Relaxed);
    burner.join().unwrap();
    server.until_health(&["READY"]).await;
    // Retention may have deleted old predictions; the others must have ended.
    let mut kept = 0;
    for id in accepted.iter().rev().take(300) {
        let is = server.get(&format!("/predictions/{id}")).await;
        if is.status == 200 {
            assert!(is.json["completed_at"].is_string(), "{}", is.text);
            kept += 1;
        }
    }
    assert!(kept > 0);
    latencies.sort();
    let p99 = latencies[latencies.len() * 99 / 100];
    let (before, after) = (settled.await.unwrap(), memory(&server));
    eprintln!(
        "{clients} clients, {} predictions, {} GETs, p99 {p99:?}, memory {} MiB after a third, {} MiB at the end",
        accepted.len(),
        latencies.len(),
        before >> 20,
        after >> 20
    );
    if demanding {
        assert!(p99 < Duration::from_millis(20), "{p99:?}");
        assert!(after < before + before / 4 + (32 << 20), "{before} bytes became {after}");
    }
}

/// One client: returns the ids of its accepted predictions, and the latencies of its GETs.
async fn visit(server: &Server, client: u64, until: Instant) -> (Vec<String>, Vec<Duration>) {
    let mut dice = Dice(client * 0x9e37_79b9 + 1);
    let (mut accepted, mut latencies) = (Vec::new(), Vec::new());
    let mut round = 0;
    while Instant::now() < until {
        round += 1;
        let id = format!("c{client}-{round}");
        let body =
            json!({"id": id, "input": {"prompt": "step=1", "num_inference_steps": 1 + dice.roll(4), "width": 512}});
        match dice.roll(4) {
            0 => {
                // Posts, and disconnects before the response.
                let request = server.request("POST", "/predictions").header("content-type", "application/json");
                let wait = Duration::from_millis(dice.roll(100));
                let _ = request.body(body.to_string()).timeout(wait).send().await;
            }
            choice => {
                let answer = server.predict_async(&body).await;
                if answer.status == 429 {
                    tokio::time::sleep(Duration::from_millis(50 + dice.roll(200))).await;
                    continue;
                }
                assert_eq!(answer.status, 202, "{}", answer.text);
                accepted.push(id.clone());
                if choice == 1 {
                    server.send(server.request("POST", &format!("/predictions/{id}/cancel"))).await;
                }
                for _ in 0..3 {
                    let begun = Instant::now();
                    let is = server.get(&format!("/predictions/{id}")).await;
                    latencies.push(begun.elapsed());
                    assert!(is.status == 200 || is.status == 404, "{}", is.text);
                    tokio::time::sleep(Duration::from_millis(100 + dice.roll(400))).await;
                }
                server.send(server.request("POST", &format!("/predictions/{id}/cancel"))).await;
            }
        }
    }
    (accepted, latencies)
}

/// Resident memory of the server in bytes.
fn memory(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

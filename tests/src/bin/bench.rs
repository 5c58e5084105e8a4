//! Measures the overhead of the service from outside, with the stand-in worker: `cargo run --release -p tests --bin
//! bench`.
//!
//! - time from POST to the start in the worker, with the default store and in memory;
//! - time of a synchronous prediction of one instant step;
//! - throughput and latency of GET `/predictions/{id}`;
//! - time of a POST while retention removes 2,000 pictures of 1 MB;
//! - memory of the server with 200 of the worst bodies at once, and the latency of GET `/live` beside them.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;
use tests::Server;

const PREDICTIONS: usize = 300;
const GETS: usize = 40_000;
const CONNECTIONS: usize = 32;
const PICTURES: usize = 2000;
const BODIES: usize = 200;
/// Each is parsed beside the threads that answer, and their sum is above what is held at once.
const BODY: usize = 4 << 20;

#[tokio::main]
async fn main() {
    for (store, arguments) in [("SQLite", &[][..]), ("memory", &["--data-dir", "none"][..])] {
        let server = Server::start(arguments).await;
        let (start, whole) = predictions(&server).await;
        println!("POST to the start in the worker, {store}: {}", spread(start));
        println!("POST to the response, one instant step, {store}: {}", spread(whole));
    }
    gets(Server::start(&[]).await).await;
    sweep().await;
    bodies(Server::start(&["--queue-size", "1000"]).await).await;
}

/// Latencies until the start in the worker, and until the response.
async fn predictions(server: &Server) -> (Vec<Duration>, Vec<Duration>) {
    let body = json!({"input": {"prompt": "clock step=0", "num_inference_steps": 1, "width": 512}});
    let (mut start, mut whole) = (Vec::new(), Vec::new());
    for round in 0..PREDICTIONS {
        let (sent, begun) = (SystemTime::now(), Instant::now());
        let answer = server.predict(&body).await;
        let took = begun.elapsed();
        let logs = answer.json["logs"].as_str().expect("logs");
        let clock = logs.lines().find_map(|line| line.strip_prefix("clock ")?.parse().ok()).expect("a clock");
        let started = UNIX_EPOCH + Duration::from_micros(clock);
        // Caches are cold in the first rounds.
        if round >= 20 {
            start.push(started.duration_since(sent).unwrap_or_default());
            whole.push(took);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    (start, whole)
}

/// Measures GETs of a running prediction.
async fn gets(server: Server) {
    server.predict_async(&json!({"id": "runs", "input": {"prompt": "step=1000", "num_inference_steps": 200}})).await;
    let server = Arc::new(server);
    let begun = Instant::now();
    let tasks: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let server = Arc::clone(&server);
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                for _ in 0..GETS / CONNECTIONS {
                    let begun = Instant::now();
                    assert_eq!(server.get("/predictions/runs").await.status, 200);
                    latencies.push(begun.elapsed());
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.expect("a client"));
    }
    let rate = latencies.len() as f64 / begun.elapsed().as_secs_f64();
    println!(
        "GET /predictions/{{id}}, {CONNECTIONS} connections, client on the same machine: {rate:.0} a second, {}",
        spread(latencies)
    );
}

/// POSTs while retention, which was just switched on, removes large pictures.
async fn sweep() {
    let dir = tempfile::tempdir().expect("a folder for the data");
    let post = async |server: &Server, prompt: &str| {
        // A picture of 640 x 512 pixels without any order is 1 MB.
        let body = json!({"input": {"prompt": prompt, "num_inference_steps": 1, "width": 640}});
        let begun = Instant::now();
        assert_eq!(server.predict_async(&body).await.status, 202);
        begun.elapsed()
    };
    {
        let queue = PICTURES.to_string();
        let server = Server::launch_in(dir.path(), &["--queue-size", &queue], &[("STAND_IN_JOBS", "8")]);
        server.until_health(&["READY"]).await;
        for _ in 0..PICTURES {
            post(&server, "noise step=0").await;
        }
        let ended = format!("syncdiffusion_predictions_total{{status=\"succeeded\"}} {PICTURES}\n");
        while !server.get("/metrics").await.text.contains(&ended) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let size = || dir.path().join("predictions.sqlite").metadata().expect("a database").len() >> 20;
    let (before, begun) = (size(), Instant::now());
    let server = Server::launch_in(dir.path(), &["--keep-count", "10"], &[]);
    server.until_health(&["READY"]).await;
    let mut latencies = Vec::new();
    while !server.log().contains("old predictions were removed") {
        latencies.push(post(&server, "step=0").await);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    println!(
        "POST beside a sweep of {PICTURES} pictures of 1 MB, {:.1} s from {before} MiB to {}: {}",
        begun.elapsed().as_secs_f64(),
        size(),
        spread(latencies)
    );
}

/// Many of the worst bodies at once: what is nothing to a parser that keeps it is 97 times as large.
async fn bodies(server: Server) {
    let server = Arc::new(server);
    let worst = [r#"{"":0},"#, "0,", "[],", r#""","#].map(|unit| {
        let unknown = unit.repeat(BODY / unit.len());
        format!(r#"{{"input":{{"prompt":"step=0","num_inference_steps":1,"width":512,"x":[{unknown}0]}}}}"#)
    });
    let worst = Arc::new(worst);
    let begun = Instant::now();
    let posts: Vec<_> = (0..BODIES)
        .map(|n| {
            let (server, worst) = (Arc::clone(&server), Arc::clone(&worst));
            tokio::spawn(async move {
                let request = server.request("POST", "/predictions").header("content-type", "application/json");
                server.send(request.body(worst[n % worst.len()].clone())).await.status
            })
        })
        .collect();
    // On a connection of its own: that of a body which was refused before it was read is closed.
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let mut latencies = Vec::new();
    while !posts.iter().all(tokio::task::JoinHandle::is_finished) {
        let asked = Instant::now();
        let live = client.get(format!("{}/live", server.url)).send().await.expect("an answer");
        assert_eq!(live.status(), 200);
        latencies.push(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (mut made, mut refused) = (0, 0);
    for post in posts {
        match post.await.expect("a POST") {
            200 => made += 1,
            503 => refused += 1,
            status => panic!("{status}"),
        }
    }
    println!(
        "{BODIES} of the worst bodies of {} MiB at once, {:.1} s: {made} made, {refused} told to try again, peak memory {} \
         MiB; GET /live beside them: {}",
        BODY >> 20,
        begun.elapsed().as_secs_f64(),
        server.peak_memory() >> 20,
        spread(latencies)
    );
}

/// Median and tail, in milliseconds.
fn spread(mut latencies: Vec<Duration>) -> String {
    latencies.sort();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
    format!("median {:.2} ms, p90 {:.2} ms, p99 {:.2} ms", at(0.5), at(0.9), at(0.99))
}

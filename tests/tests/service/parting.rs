//! The ends of processes and connections: a server that stops still answers, a worker ends with its server, and a
//! client that ends its side of a connection gets its response.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::Server;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::hostile::{connect, rest};

/// Sends a request on a connection of its own and returns the response.
async fn ask(server: &Server, method: &str, path: &str, body: &str) -> String {
    let mut stream = connect(server).await;
    send(&mut stream, "1.1", method, path, body).await;
    rest(&mut stream).await
}

async fn send(stream: &mut TcpStream, version: &str, method: &str, path: &str, body: &str) {
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/{version}\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
}

/// A prediction that stops after its first step until a file exists.
fn held(id: &str, file: &Path) -> Value {
    json!({"id": id, "input": {"prompt": format!("until={}", file.display()), "num_inference_steps": 3, "width": 512}})
}

#[tokio::test]
async fn a_server_that_stops_answers_for_what_runs_and_refuses_what_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let (data, go) = (dir.path().join("data"), dir.path().join("go"));
    let mut server = Server::launch_in(&data, &["--grace", "10m"], &[]);
    server.until_health(&["READY"]).await;
    assert_eq!(server.predict_async(&held("runs", &go)).await.status, 202);
    server.until("/predictions/runs", |is| is["metrics"]["step"] == 1).await;
    let waits = held("waits", &go);
    let (waits, events, ()) =
        tokio::join!(server.predict(&waits), ask(&server, "GET", "/predictions/runs/stream", ""), async {
            server.until("/predictions/waits", |is| is["id"] == "waits").await;
            server.signal("TERM");
            server.logged("stopping on a signal").await;
            for (method, path, status, words) in [
                ("GET", "/predictions/runs", 200, "processing"),
                ("GET", "/health-check", 200, "BUSY"),
                ("GET", "/live", 200, ""),
                ("GET", "/ready", 503, ""),
                ("GET", "/predictions", 200, "results"),
                ("POST", "/predictions", 503, "the server is shutting down"),
                ("PUT", "/predictions/new", 503, "the server is shutting down"),
                ("PUT", "/predictions/runs", 202, "processing"),
            ] {
                let body = if method == "GET" { "" } else { r#"{"input":{"prompt":"a"}}"# };
                let answer = ask(&server, method, path, body).await;
                let is = format!("HTTP/1.1 {status} ");
                assert!(answer.starts_with(&is) && answer.contains(words), "{method} {path}: {answer}");
            }
            std::fs::write(&go, "").unwrap();
        },);
    assert_eq!((waits.status, &waits.json["status"]), (202, &json!("starting")), "it is not kept for the grace");
    assert!(events.contains("event: completed") && events.contains("succeeded"), "{events}");
    assert!(server.exit().await.success(), "{}", server.log());
    let server = Server::launch_in(&data, &[], &[]);
    assert_eq!(server.get("/predictions/runs").await.json["status"], "succeeded");
    assert_eq!(server.ended("waits").await["status"], "succeeded");
}

#[tokio::test]
async fn what_runs_can_be_canceled_while_the_server_stops() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&["--grace", "10m"]).await;
    for id in ["runs", "waits"] {
        server.predict_async(&held(id, &dir.path().join("never"))).await;
    }
    server.until("/predictions/runs", |is| is["metrics"]["step"] == 1).await;
    server.signal("TERM");
    server.logged("stopping on a signal").await;
    for id in ["waits", "runs"] {
        let answer = ask(&server, "POST", &format!("/predictions/{id}/cancel"), "").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    assert!(server.exit().await.success(), "nothing is left to wait for");
}

/// Whether a process runs. One that nobody has waited for yet does not.
fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !is() {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_worker_that_does_not_listen_ends_with_its_server() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let (worker, number) = (dir.path().join("worker"), dir.path().join("number"));
    let script = format!("#!/bin/sh\necho $$ >{0}.part\nmv {0}.part {0}\nexec sleep 1000\n", number.display());
    std::fs::write(&worker, script).unwrap();
    std::fs::set_permissions(&worker, std::fs::Permissions::from_mode(0o755)).unwrap();
    let data = dir.path().join("data");
    for _ in 0..3 {
        let _ = std::fs::remove_file(&number);
        let mut server = Server::launch_in(&data, &["--worker", worker.to_str().unwrap()], &[]);
        until("the worker starts", || number.exists()).await;
        let pid = std::fs::read_to_string(&number).unwrap().trim().to_owned();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let group = stat.rsplit_once(") ").unwrap().1.split(' ').nth(2).unwrap().to_owned();
        assert_eq!(group, pid, "it has a process group of its own");
        server.kill();
        until("the worker ends", || !runs(&pid)).await;
    }
}

#[tokio::test]
async fn a_client_that_ends_its_side_and_waits_is_answered() {
    let server = Server::start(&[]).await;
    let dir = tempfile::tempdir().unwrap();
    for version in ["1.1", "1.0"] {
        let (id, go) = (format!("half-{version}"), dir.path().join(version));
        let mut stream = connect(&server).await;
        send(&mut stream, version, "POST", "/predictions", &held(&id, &go).to_string()).await;
        stream.shutdown().await.unwrap();
        let path = format!("/predictions/{id}");
        server.until(&path, |is| is["metrics"]["step"] == 1).await;
        // Long enough for the server to doubt that somebody is there.
        tokio::time::sleep(Duration::from_millis(300)).await;
        std::fs::write(&go, "").unwrap();
        let answer = rest(&mut stream).await;
        let answer = answer.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(&answer);
        assert!(answer.contains(" 200 OK\r\n") && answer.contains(r#""status":"succeeded""#), "{answer}");
    }
    // What is ready at once comes without further ado.
    for path in ["/health-check", "/openapi.json", "/playground", "/predictions/half-1.1/stream"] {
        let mut stream = connect(&server).await;
        send(&mut stream, "1.1", "GET", path, "").await;
        stream.shutdown().await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {answer}");
    }
}

#[tokio::test]
async fn a_client_that_ends_its_side_and_follows_events_gets_them_all() {
    let server = Server::start(&[]).await;
    let dir = tempfile::tempdir().unwrap();
    let go = dir.path().join("go");
    server.predict_async(&held("runs", &go)).await;
    let mut stream = connect(&server).await;
    send(&mut stream, "1.1", "GET", "/predictions/runs/stream", "").await;
    stream.shutdown().await.unwrap();
    server.until("/predictions/runs", |is| is["metrics"]["step"] == 1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    std::fs::write(&go, "").unwrap();
    let events = rest(&mut stream).await;
    assert!(events.starts_with("HTTP/1.1 200 OK\r\n") && events.contains("event: completed"), "{events}");
}

#[tokio::test]
async fn a_client_that_leaves_is_told_from_one_that_waits() {
    let server = Server::start(&[]).await;
    let dir = tempfile::tempdir().unwrap();
    for (id, prefer) in [("plain", ""), ("half", "shutdown")] {
        let mut stream = connect(&server).await;
        send(&mut stream, "1.1", "POST", "/predictions", &held(id, &dir.path().join("never")).to_string()).await;
        server.until(&format!("/predictions/{id}"), |is| is["metrics"]["step"] == 1).await;
        if prefer == "shutdown" {
            stream.shutdown().await.unwrap();
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        drop(stream);
        assert_eq!(server.ended(id).await["status"], "canceled");
    }
}

#[tokio::test]
async fn a_body_that_its_client_does_not_complete_is_refused() {
    let server = Server::start(&[]).await;
    let mut stream = connect(&server).await;
    let head = "POST /predictions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n{\"input\"";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(server.get("/predictions").await.json["results"], json!([]));
}

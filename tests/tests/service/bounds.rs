//! What clients, workers and the readers of the log can take of the server: the rows of the table in docs/operating.md
//! that no other file tests.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use axum::http::Request;
use serde_json::{Value, json};
use tests::Server;
use tokio::io::AsyncWriteExt as _;

use crate::hostile::{connect, rest};

const MIB: usize = 1 << 20;

fn job(prompt: &str) -> Value {
    json!({"input": {"prompt": prompt, "num_inference_steps": 2, "width": 512}})
}

/// All pages of the list, by one of the two links.
async fn pages(server: &Server, first: &str, link: &str) -> Vec<Value> {
    let (mut pages, mut path) = (Vec::new(), first.to_owned());
    loop {
        let page = server.get(&path).await;
        assert_eq!(page.status, 200, "{}", page.text);
        assert!(page.text.len() < 5 * MIB, "a page of {} bytes", page.text.len());
        let next = page.json[link].as_str().map(|url| url[server.url.len()..].to_owned());
        pages.push(page.json);
        match next {
            Some(next) => path = next,
            None => return pages,
        }
    }
}

fn ids(pages: &[Value]) -> Vec<String> {
    let results = pages.iter().flat_map(|page| page["results"].as_array().unwrap());
    results.map(|is| is["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_page_of_the_list_ends_at_some_size_and_the_next_continues() {
    for data in [&[][..], &["--data-dir", "none"]] {
        let server = Server::start(data).await;
        let (mut newest_first, large) = (Vec::new(), "\u{1}".repeat(MIB / 4));
        for n in 0..20 {
            let id = format!("n{n}");
            let prompt = if n % 5 == 4 { "small" } else { &large };
            let input = json!({"prompt": prompt, "num_inference_steps": 1, "width": 512});
            let answer = server.predict(&json!({"id": id, "input": input})).await;
            assert_eq!(answer.json["status"], "succeeded");
            newest_first.insert(0, id);
        }
        let forth = pages(&server, "/predictions?limit=100", "next").await;
        assert_eq!(ids(&forth), newest_first);
        // A quarter of a MiB of control characters is six times as long as JSON.
        assert!((8..=16).contains(&forth.len()), "{} pages", forth.len());
        let oldest = forth.last().unwrap()["previous"].as_str().unwrap()[server.url.len()..].to_owned();
        let mut back = pages(&server, &oldest, "previous").await;
        back.reverse();
        let count = forth.last().unwrap()["results"].as_array().unwrap().len();
        assert_eq!(ids(&back), newest_first[..20 - count]);
        let small = server.get("/predictions?limit=2&cursor=b2").await.json;
        assert_eq!(small["results"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn records_in_memory_are_bounded() {
    let server = Server::start(&["--data-dir", "none", "--no-metadata"]).await;
    let prompt = "x".repeat(MIB - 1);
    for n in 0..300 {
        let input = json!({"prompt": prompt, "num_inference_steps": 1, "width": 512});
        assert_eq!(server.predict(&json!({"id": n.to_string(), "input": input})).await.status, 200);
    }
    for (id, status) in [("0", 404), ("20", 404), ("299", 200), ("100", 200)] {
        assert_eq!(server.get(&format!("/predictions/{id}")).await.status, status, "{id}");
    }
    assert!(server.peak_memory() < 700 * MIB, "{} MiB", server.peak_memory() / MIB);
}

#[tokio::test]
async fn events_of_a_worker_are_bounded() {
    let server = Server::start(&[]).await;
    server.predict(&job("a")).await;
    let before = server.peak_memory();
    let flooded = server.predict(&job("flood=20000")).await.json;
    assert_eq!(flooded["status"], "succeeded");
    let logs = flooded["logs"].as_str().unwrap();
    assert!(logs.len() < MIB + 10_000 && logs.len() > MIB - 10_000, "{} bytes", logs.len());
    assert!(logs.contains("further lines of the worker are left out") && logs.contains("2/2"));

    let endless = server.predict(&job("endless")).await.json;
    assert_eq!((&endless["status"], &endless["metrics"]["steps"]), (&json!("succeeded"), &json!(2)));
    assert_eq!(endless["logs"].as_str().unwrap().lines().count(), 2);

    for (prompt, words) in [("tiny", "8 x 8"), ("bloated", "512 x 512")] {
        let answer = server.predict(&job(prompt)).await.json;
        assert_eq!(answer["status"], "failed", "{prompt}");
        let error = answer["error"].as_str().unwrap();
        assert!(error.starts_with("the worker sent a picture of") && error.contains(words), "{error}");
    }
    assert_eq!(server.predict(&job("a")).await.json["status"], "succeeded");
    let grown = server.peak_memory().saturating_sub(before);
    assert!(grown < 100 * MIB, "{} MiB", grown / MIB);
}

#[tokio::test]
async fn a_model_that_cannot_be_is_a_failed_setup() {
    for variable in [("STAND_IN_VAE_FACTOR", "0"), ("STAND_IN_WINDOW", "0"), ("STAND_IN_WINDOW", "4294967295")] {
        let server = Server::launch(&[], &[variable]);
        let health = server.until_health(&["SETUP_FAILED"]).await;
        assert!(health["setup"]["logs"].as_str().unwrap().contains("which cannot be"), "{health}");
        assert_eq!(server.predict(&job("a")).await.status, 503);
        assert_eq!(server.get("/openapi.json").await.status, 200);
        assert!(!server.log().contains("panic"), "{}", server.log());
    }
}

#[tokio::test]
async fn headers_are_bounded() {
    let server = Server::start(&[]).await;
    for (length, status) in [(1000, "200"), (60 << 10, "200"), (70 << 10, "431"), (400 << 10, "431")] {
        let mut stream = connect(&server).await;
        let head = format!("GET /live HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-a: {}\r\n\r\n", "y".repeat(length));
        // The server may have answered, and closed, before it has all.
        let _ = stream.write_all(head.as_bytes()).await;
        let said = rest(&mut stream).await;
        assert!(
            said.is_empty() && status == "431" || said.starts_with(&format!("HTTP/1.1 {status}")),
            "{length}: {said}"
        );
    }
    let stream = connect(&server).await;
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let get = |length: usize| {
        Request::get(format!("{}/live", server.url)).header("x-a", "y".repeat(length)).body(()).unwrap()
    };
    let (small, _) = client.send_request(get(1000), true).unwrap();
    assert_eq!(small.await.unwrap().status(), 200);
    assert_eq!(client.current_max_send_streams(), 32, "requests at once on a connection");
    let (large, _) = client.send_request(get(17 << 10), true).unwrap();
    assert!(large.await.map_or(true, |answer| answer.status() == 431));
    connection.abort();
}

#[tokio::test]
async fn machines_that_vanish_are_looked_for() {
    let server = Server::start(&[]).await;
    let mut stream = connect(&server).await;
    stream.write_all(b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    stream.readable().await.unwrap();
    let port = |address: std::net::SocketAddr| format!(":{:04X}", address.port());
    let (client, theirs) = (port(stream.local_addr().unwrap()), port(stream.peer_addr().unwrap()));
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let fields = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let socket = fields.skip(1).find(|is| is[1].ends_with(&theirs) && is[2].ends_with(&client)).unwrap();
    // The timer that runs is that of a silent connection.
    assert!(socket[5].starts_with("02:"), "{socket:?}");
}

#[tokio::test]
async fn a_method_that_a_path_does_not_have_is_named_in_json() {
    let server = Server::start(&[]).await;
    for (method, path, allowed) in
        [("DELETE", "/predictions", "POST"), ("POST", "/health-check", "GET"), ("PATCH", "/predictions/a", "PUT")]
    {
        let answer = server.json(method, path, &[], &json!({})).await;
        assert_eq!(answer.status, 405, "{method} {path}");
        assert!(answer.headers["allow"].to_str().unwrap().contains(allowed));
        let detail = answer.json["detail"].as_str().unwrap();
        assert!(detail.contains(&format!("`{method}`")) && detail.contains(path), "{detail}");
    }
}

/// A port that nothing listens on.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn until_live(client: &reqwest::Client, url: &str) {
    let end = Instant::now() + Duration::from_secs(30);
    while client.get(format!("{url}/ready")).send().await.map_or(0, |answer| answer.status().as_u16()) != 200 {
        assert!(Instant::now() < end, "the server does not start");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn output_that_nobody_reads_stops_nothing() {
    for format in ["text", "json"] {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port().to_string();
        let mut command = Command::new(tests::binary());
        command.args(["serve", "--host", "127.0.0.1", "--port", &port, "--log", "debug", "--log-format", format]);
        command.arg("--data-dir").arg(dir.path()).arg("--worker").arg(tests::stand_in());
        // A pipe that is full already, and one that fills.
        let (unread, mut full) = std::io::pipe().unwrap();
        full.write_all(&vec![b'.'; 64 << 10]).unwrap();
        let mut child = command.stdout(full).stderr(Stdio::piped()).spawn().unwrap();
        let url = format!("http://127.0.0.1:{port}");
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        until_live(&client, &url).await;
        let long = "k".repeat(60);
        let input: serde_json::Map<_, _> = (0..16).map(|n| (format!("{long}{n}"), json!(1))).collect();
        let mut input = Value::Object(input);
        input["prompt"] = "a".into();
        input["num_inference_steps"] = 1.into();
        // A pipe has 64 KiB, and these lines have more than twice as much.
        for _ in 0..120 {
            let request = client.post(format!("{url}/predictions")).json(&json!({"input": input}));
            assert_eq!(request.send().await.unwrap().status(), 200);
        }
        assert_eq!(client.get(format!("{url}/live")).send().await.unwrap().status(), 200);
        // What waits is there for who reads it at last.
        let mut stderr = child.stderr.take().unwrap();
        let mut read = vec![0; 100_000];
        stderr.read_exact(&mut read).unwrap();
        assert!(String::from_utf8_lossy(&read).contains("Stripped unknown input fields"));
        let stopped = Command::new("kill").arg(child.id().to_string()).status().unwrap();
        assert!(stopped.success());
        let end = Instant::now() + Duration::from_secs(30);
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < end, "the server waits for its reader");
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        assert!(status.success(), "{status}");
        drop(unread);
    }
}

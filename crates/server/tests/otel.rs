//! Spans arrive at a receiver, and belong to the trace that the client named.
#![cfg(feature = "otel")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// A worker that fails every job.
const WORKER: &str = r#"#!/bin/sh
model='{"name":"x","version":"v","window":64,"vae_factor":8,"device":"cpu","dtype":"f32"}'
echo '{"type":"loading","model":'$model'}'
echo '{"type":"ready","model":'$model',"load_seconds":0,"peak_memory_bytes":1,"jobs":1}'
while read -r line; do
  case "$line" in
    *'"type":"run"'*)
      job=$(echo "$line" | sed 's/.*"job":"\([0-9]*\)".*/\1/')
      echo '{"type":"failed","job":"'$job'","error":"no","fatal":false}'
      ;;
    *'"type":"shutdown"'*) exit 0 ;;
  esac
done
"#;

/// Answers every request with 200 and passes on its path and body.
fn receive(listener: &TcpListener, to: &mpsc::Sender<(String, Vec<u8>)>) {
    for stream in listener.incoming() {
        let mut stream = BufReader::new(stream.unwrap());
        while let Some((first, body)) = message(&mut stream) {
            let _ = to.send((first, body));
            let _ = stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        }
    }
}

/// The first line and the body of a request or an answer.
fn message(stream: &mut BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
    let (mut first, mut length) = (String::new(), 0);
    stream.read_line(&mut first).ok().filter(|read| *read > 0)?;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        match line.trim().to_ascii_lowercase().split_once(": ") {
            Some(("content-length", value)) => length = value.parse().ok()?,
            None if line.trim().is_empty() => break,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((first, body))
}

fn ask(address: &str, request: &str, headers: &str, body: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    write!(stream, "{request} HTTP/1.1\r\nhost: x\r\n{headers}content-length: {length}\r\n\r\n{body}").unwrap();
    let (first, body) = message(&mut BufReader::new(stream)).unwrap();
    (first, String::from_utf8(body).unwrap())
}

/// How often bytes are in others.
fn count(all: &[u8], part: &[u8]) -> usize {
    all.windows(part.len()).filter(|window| *window == part).count()
}

#[test]
fn spans_of_requests_and_predictions_arrive_in_the_trace_of_the_client() {
    let dir = tempfile::tempdir().unwrap();
    let worker = dir.path().join("worker");
    std::fs::write(&worker, WORKER).unwrap();
    std::fs::set_permissions(&worker, std::fs::Permissions::from_mode(0o755)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (to, received) = mpsc::channel();
    std::thread::spawn(move || receive(&listener, &to));

    let mut server = Command::new(env!("CARGO_BIN_EXE_syncdiffusion"));
    server.args(["serve", "--host", "127.0.0.1", "--port", "0", "--data-dir", "none", "--worker"]).arg(&worker);
    let mut server = server
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdout, mut line) = (BufReader::new(server.stdout.take().unwrap()), String::new());
    stdout.read_line(&mut line).unwrap();
    let address = line.strip_prefix("Listening on ").and_then(|rest| rest.split(". ").next()).unwrap().to_owned();
    let ready = (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        ask(&address, "GET /ready", "", "").0.contains(" 200 ")
    });
    assert!(ready, "the server does not become ready");

    let trace = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128;
    let headers = format!("traceparent: 00-{trace:032x}-b7ad6b7169203331-01\r\ncontent-type: application/json\r\n");
    let (status, body) = ask(&address, "POST /predictions", &headers, r#"{"id":"traced","input":{"prompt":"a"}}"#);
    assert!(status.contains(" 200 ") && body.contains(r#""status":"failed""#), "{status} {body}");
    // What has not been sent is sent at the end.
    ask(&address, "POST /shutdown", "", "");
    let output = server.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let all: Vec<(String, Vec<u8>)> = received.try_iter().collect();
    assert!(!all.is_empty() && all.iter().all(|(first, _)| first.starts_with("POST /v1/traces ")), "{all:?}");
    let spans = all.into_iter().flat_map(|(_, body)| body).collect::<Vec<u8>>();
    println!("received {} bytes of spans", spans.len());
    for name in
        ["syncdiffusion", "POST /predictions", "POST /shutdown", "prediction", "traced", "http.response.status_code"]
    {
        assert!(count(&spans, name.as_bytes()) > 0, "no `{name}` among the spans");
    }
    assert_eq!(count(&spans, &trace.to_be_bytes()), 2, "the request and its prediction are in the trace of the client");
}

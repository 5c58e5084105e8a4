//! What strangers may send: pages of other origins, bodies that are larger in memory, silent clients of HTTP/2.

use std::time::Duration;

use serde_json::json;
use tests::Server;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

#[tokio::test]
async fn a_foreign_page_can_neither_use_nor_stop_the_server() {
    let mut server = Server::start(&["--cors-origin", "https://app.example"]).await;
    let body = json!({"input": {"prompt": "a", "num_inference_steps": 1, "width": 512}});
    let evil = [
        vec![("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")],
        vec![("sec-fetch-site", "same-site")],
        vec![("origin", "https://evil.example")],
        vec![("origin", "null")],
        vec![("host", "evil.example")],
    ];
    for headers in &evil {
        for (method, path) in
            [("POST", "/predictions"), ("PUT", "/predictions/x"), ("POST", "/shutdown"), ("DELETE", "/predictions/x")]
        {
            let answer = server.json(method, path, headers, &body).await;
            assert_eq!(answer.status, 403, "{method} {path} {headers:?}: {}", answer.text);
            assert!(answer.json["detail"].is_string());
        }
    }
    for headers in [
        vec![],
        vec![("sec-fetch-site", "same-origin"), ("origin", "https://behind.example")],
        vec![("sec-fetch-site", "cross-site"), ("origin", "https://app.example")],
        vec![("origin", server.url.as_str())],
        vec![("host", "localhost:1")],
    ] {
        let answer = server.json("POST", "/predictions", &headers, &body).await;
        assert_eq!(answer.status, 200, "{headers:?}: {}", answer.text);
    }
    let page = server.request("GET", "/playground").header("sec-fetch-site", "cross-site");
    assert_eq!(server.send(page).await.status, 200);
    let preflight = server
        .request("OPTIONS", "/predictions")
        .header("origin", "https://app.example")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "x-stainless-os,idempotency-key");
    let allowed = server.send(preflight).await.headers["access-control-allow-headers"].to_str().unwrap().to_owned();
    assert!(allowed.contains("x-stainless-os") && allowed.contains("idempotency-key"), "{allowed}");
    server.json("POST", "/shutdown", &[], &json!({})).await;
    assert!(server.exit().await.success());
}

#[tokio::test]
async fn a_body_costs_no_more_than_three_times_its_size() {
    let server = Server::start(&[]).await;
    let before = server.peak_memory();
    let size = 32 << 20;
    let filled = |with: &str| with.repeat(size / with.len());
    for (body, status) in [
        (format!(r#"{{"input":{{"prompt":"a","num_inference_steps":1,"x":[{}0]}}}}"#, filled(r#"{"":0},"#)), 200),
        (format!(r#"{{"input":{{"prompt":[{}0]}}}}"#, filled("[0],")), 422),
        (format!(r#"{{"input":{{"prompt":"a"}},"context":{{{}"a":1}}}}"#, filled(r#""":"","#)), 422),
        (format!(r#"{{"input":{{"width":"{}"}}}}"#, filled("y")), 422),
        (format!(r#"{{"input":{{"prompt":"{}"}}}}"#, filled(r"\n")), 422),
        (format!(r#"{{"input":{{{}"prompt":"a","num_inference_steps":1}}}}"#, filled(r#""k":{"":0},"#)), 200),
    ] {
        let request = server.request("POST", "/predictions").header("content-type", "application/json");
        let answer = server.send(request.body(body)).await;
        assert_eq!(answer.status, status, "{}", &answer.text[..answer.text.len().min(500)]);
        assert!(status == 200 || answer.text.len() < 1000, "{} bytes", answer.text.len());
    }
    let grown = server.peak_memory().saturating_sub(before);
    assert!(grown < 3 * size, "{} MiB", grown >> 20);
    assert!(server.log().lines().all(|line| line.len() < 5000), "a line of the log is long");
}

#[tokio::test]
async fn what_is_no_plain_json_or_no_path_is_explained() {
    let server = Server::start(&[]).await;
    let post = |path: &str| server.request("POST", path).header("content-type", "application/json");
    let answer = server.send(post("/predictions").header("content-encoding", "gzip").body(&b"\x1f\x8b\x08"[..])).await;
    assert_eq!((answer.status, &answer.headers["accept-encoding"]), (415, &"identity".parse().unwrap()));
    assert!(answer.json["detail"].as_str().unwrap().contains("gzip"));
    let marked = "\u{feff}{\"input\":{\"prompt\":\"a\",\"num_inference_steps\":1,\"width\":512}}";
    assert_eq!(server.send(post("/predictions").body(marked)).await.json["status"], "succeeded");
    let answer = server.send(post("/predictions/").body("{}")).await;
    assert_eq!(answer.status, 404);
    assert!(answer.json["detail"].as_str().unwrap().contains("`/predictions`"), "{}", answer.text);
    assert!(server.get("/nope").await.json["detail"].as_str().unwrap().contains("`/nope`"));
}

#[tokio::test]
async fn text_of_clients_is_one_line_of_the_log() {
    let server = Server::start(&[]).await;
    let id = "ev\nil 2026-01-01T00:00:00Z  INFO forged line\u{1b}[31m";
    let input = json!({"prompt": "a", "num_inference_steps": 1, "width": 512, format!("{}\n", "k".repeat(1 << 20)): 1});
    let body = json!({"id": id, "input": input, "webhook": "http://127.0.0.1:9/", "webhook_events_filter": ["start"]});
    assert_eq!(server.predict(&body).await.status, 200);
    let log = server.logged("a webhook was not delivered").await;
    assert!(log.contains("Stripped unknown input fields") && !log.contains('\u{1b}'));
    assert!(log.lines().all(|line| line.len() < 5000 && !line.starts_with("il ")), "{log}");
}

/// A connection of HTTP/2 that sends its preface and settings, and then nothing.
async fn silent(server: &Server, settings: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let length = settings.len() as u8;
    stream.write_all(&[&[0, 0, length, 4, 0, 0, 0, 0, 0], settings].concat()).await.unwrap();
    stream
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut bytes = vec![0; 1 << 16];
    timeout(Duration::from_secs(20), async { while matches!(stream.read(&mut bytes).await, Ok(1..)) {} }).await.is_ok()
}

#[tokio::test]
async fn silent_clients_of_http2_are_ended() {
    let limits = ["--header-timeout", "300ms", "--write-timeout", "300ms", "--max-connections", "4"];
    let server = Server::start(&limits).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(silent(&server, &[]).await);
    }
    assert_eq!(timeout(Duration::from_secs(20), server.get("/live")).await.unwrap().status, 200);
    for stream in &mut held {
        assert!(is_closed(stream).await);
    }
}

#[tokio::test]
async fn clients_of_http2_that_take_nothing_are_ended() {
    let server = Server::start(&["--write-timeout", "300ms"]).await;
    // A window of nothing for bodies.
    let mut stream = silent(&server, &[0, 4, 0, 0, 0, 0]).await;
    // GET http /openapi.json without Huffman coding: the path and the authority are literals.
    let mut head = vec![0x82, 0x86, 0x04, 13];
    head.extend_from_slice(b"/openapi.json");
    head.extend_from_slice(&[0x01, 9]);
    head.extend_from_slice(b"localhost");
    let frame = [&[0, 0, head.len() as u8, 1, 5, 0, 0, 0, 1], head.as_slice()].concat();
    stream.write_all(&frame).await.unwrap();
    assert!(is_closed(&mut stream).await);
    // One that waits for its picture does not count.
    let body = json!({"input": {"prompt": "step=100", "num_inference_steps": 10}});
    assert_eq!(server.predict(&body).await.json["status"], "succeeded");
}

#[tokio::test]
async fn idle_connections_outlive_the_limit_for_headers() {
    let server = Server::start(&["--header-timeout", "300ms"]).await;
    let mut stream = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).await.unwrap();
    let mut bytes = vec![0; 1 << 16];
    for _ in 0..2 {
        stream.write_all(b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert!(stream.read(&mut bytes).await.unwrap() > 0);
        sleep(Duration::from_millis(900)).await;
    }
}

/// Runs the program with a variable, and returns its status and what it says.
fn run(arguments: &[&str], variable: Option<(&str, &str)>) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    let output = std::process::Command::new(tests::binary())
        .args(arguments)
        .envs(variable)
        .current_dir(dir.path())
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn wrong_words_are_named_before_anything_starts() {
    for command in [&["serve"][..], &["generate", "--prompt", "x"], &["doctor"]] {
        for (flag, variable, value, advice) in [
            ("--dtype", "SYNCDIFFUSION_DTYPE", "int8", "`f16`"),
            ("--device", "SYNCDIFFUSION_DEVICE", "gpu", "`cuda`"),
            ("--memory-budget", "SYNCDIFFUSION_MEMORY_BUDGET", "10 bananas", "512MiB"),
        ] {
            let (status, said) = run(&[command, &[flag, value]].concat(), None);
            assert_eq!(status, Some(2), "{command:?} {flag}: {said}");
            assert!(said.contains(advice) && !said.contains(variable), "{said}");
            let (status, said) = run(command, Some((variable, value)));
            assert_eq!(status, Some(2), "{command:?} {variable}: {said}");
            assert!(said.contains(advice) && said.contains(variable), "{said}");
        }
    }
    for url in ["panorama.example.com", "ftp://x", "https://a b/"] {
        let (status, said) = run(&["serve", "--public-url", url], None);
        assert!(status == Some(2) && said.contains("`https://"), "{said}");
    }
    let (status, said) = run(&["serve", "--port", "0"], Some(("SYNCDIFFUSION_API_TOKEN", "")));
    assert!(status == Some(1) && said.contains("SYNCDIFFUSION_API_TOKEN"), "an empty token opens no door: {said}");
}

#[tokio::test]
async fn empty_variables_are_unset_ones() {
    let (_, help) = run(&["serve", "--wrong"], None);
    assert!(help.contains("--wrong"));
    let help = std::process::Command::new(tests::binary()).args(["serve", "--help"]).output().unwrap().stdout;
    let help = String::from_utf8(help).unwrap();
    let names = help.split("[env: ").skip(1).map(|rest| rest.split([']', '=']).next().unwrap());
    let empty: Vec<(&str, &str)> =
        names.filter(|&name| name != "SYNCDIFFUSION_API_TOKEN").map(|name| (name, "")).collect();
    assert!(empty.len() > 30, "{empty:?}");
    let server = Server::launch(&[], &empty);
    server.until_health(&["READY"]).await;
    let words = [
        ("SYNCDIFFUSION_NO_METADATA", "1"),
        ("SYNCDIFFUSION_ALLOW_PRIVATE_URLS", "yes"),
        ("SYNCDIFFUSION_SHOW_WEBHOOK_SECRET", "0"),
        ("SYNCDIFFUSION_AWAIT_EXPLICIT_SHUTDOWN", "no"),
        ("SYNCDIFFUSION_DTYPE", "float16"),
        ("SYNCDIFFUSION_MEMORY_BUDGET", "10Gi"),
    ];
    Server::launch(&[], &words).until_health(&["READY"]).await;
}

#[tokio::test]
async fn pages_work_under_a_prefix() {
    let server = Server::start(&[]).await;
    let mut seen = 0;
    for (path, up) in [("/playground", ""), ("/docs", ""), ("/view/x", "../")] {
        let page = server.get(path).await.text;
        let files = tests::files_of(&page);
        for file in &files {
            let file = file.strip_prefix(up).unwrap_or_else(|| panic!("`{file}` of {path} is not below {up}"));
            let text = server.get(&format!("/{file}")).await.text;
            for address in ["\"/openapi", "\"/predictions", "\"/health", "\"/docs", "\"/playground", "\"/page"] {
                assert!(!text.contains(address) && !page.contains(address), "{file} of {path} has {address}");
            }
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen} files");
}

//! Clients that are slow, large, numerous or malicious.

use std::time::Duration;

use serde_json::json;
use tests::Server;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub(crate) async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.url.strip_prefix("http://").unwrap()).await.unwrap()
}

/// Reads until the server closes the connection.
pub(crate) async fn rest(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut text)).await;
    // A server that closes with unread bytes resets the connection.
    let _ = read.expect("the server closes the connection");
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn slow_headers_end_the_connection() {
    let server = Server::start(&["--header-timeout", "300ms", "--idle-timeout", "300ms"]).await;
    for begun in [
        "",
        "G",
        "GET /health-check HTTP/1.1\r\nhost: x\r\nx-slow: ",
        "POST /predictions HTTP/1.1\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM",
    ] {
        let mut stream = connect(&server).await;
        stream.write_all(begun.as_bytes()).await.unwrap();
        let said = rest(&mut stream).await;
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{begun:?}: {said}");
    }
    // A trickle gets no more time, and an idle connection is closed.
    let mut trickle = connect(&server).await;
    let (mut from, mut to) = trickle.split();
    let trickled = async {
        while to.write_all(b"GET / HTTP/1.1\r\nx: ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let mut said = Vec::new();
    tokio::select! {
        () = trickled => {},
        _ = from.read_to_end(&mut said) => {},
        () = tokio::time::sleep(Duration::from_secs(30)) => panic!("a trickle is read without end"),
    }
    let mut idle = connect(&server).await;
    idle.write_all(b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(rest(&mut idle).await.starts_with("HTTP/1.1 200"));
    // Responses have no such deadline.
    let body = json!({"input": {"prompt": "step=100", "num_inference_steps": 10}});
    assert_eq!(server.predict(&body).await.json["status"], "succeeded");
}

#[tokio::test]
async fn a_body_has_a_deadline() {
    let server = Server::start(&["--body-timeout", "300ms"]).await;
    let mut stream = connect(&server).await;
    let head = "POST /predictions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut from, mut to) = stream.split();
    let trickled = async {
        while to.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        std::future::pending::<()>().await;
    };
    let mut said = vec![0; 4096];
    let length = tokio::select! {
        () = trickled => unreachable!(),
        read = from.read(&mut said) => read.unwrap(),
        () = tokio::time::sleep(Duration::from_secs(30)) => panic!("a trickle is read without end"),
    };
    let said = String::from_utf8_lossy(&said[..length]);
    assert!(said.starts_with("HTTP/1.1 408") && said.ends_with(r#"{"detail":"the body took too long"}"#), "{said}");
    // Nor has a prediction whose body came in time.
    let body = json!({"input": {"prompt": "step=100", "num_inference_steps": 10}});
    assert_eq!(server.predict(&body).await.json["status"], "succeeded");
}

#[tokio::test]
async fn bodies_and_prompts_up_to_their_limits() {
    let server = Server::start(&[]).await;
    let megabyte = "ü 🏔 ".repeat((1 << 20) / 8);
    let body = json!({"input": {"prompt": megabyte, "num_inference_steps": 1, "width": 512}});
    let answer = server.predict(&body).await;
    assert_eq!((answer.status, &answer.json["status"]), (200, &json!("succeeded")));
    assert_eq!(answer.json["input"]["prompt"], json!(megabyte));

    // A body of exactly the limit is read, and one byte more is not.
    let of_size = |size: usize| {
        let input = r#"{"input":{"prompt":"a","num_inference_steps":1,"width":512}}"#;
        let body = format!("{input}{}", " ".repeat(size - input.len()));
        server.request("POST", "/predictions").header("content-type", "application/json").body(body)
    };
    assert_eq!(server.send(of_size(100 << 20)).await.json["status"], "succeeded");
    let refused = server.send(of_size((100 << 20) + 1)).await;
    assert_eq!(refused.status, 413);

    // A prompt that does not fit a frame is refused.
    let huge = json!({"input": {"prompt": "x".repeat(20 << 20), "num_inference_steps": 1}});
    let answer = server.predict(&huge).await;
    assert_eq!(answer.status, 422, "{}", &answer.text[..answer.text.len().min(500)]);

    let server = Server::start(&["--max-body", "1KiB"]).await;
    let answer = server.predict(&json!({"input": {"prompt": "x".repeat(1024)}})).await;
    assert_eq!(
        (answer.status, answer.json),
        (413, json!({"detail": "Failed to buffer the request body: length limit exceeded"}))
    );
}

#[tokio::test]
async fn unread_responses_end_the_connection() {
    let server = Server::start(&["--write-timeout", "300ms"]).await;
    let mut stream = connect(&server).await;
    // More than the buffers of both ends hold.
    let asked = 2_000;
    stream.write_all(&b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(asked)).await.unwrap();
    stream.readable().await.unwrap();
    let open = || async { server.metric("syncdiffusion_http_connections").await > 1.0 };
    for _ in 0..600 {
        if !open().await {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!open().await, "the connection is still open");
    let answers = rest(&mut stream).await.matches("HTTP/1.1 200").count();
    assert!(answers < asked, "all {answers} were answered");
    // A client that begins to read late gets its response.
    let mut slow = connect(&server).await;
    slow.write_all(b"GET /openapi.json HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    let said = rest(&mut slow).await;
    assert!(said.starts_with("HTTP/1.1 200") && said.trim_end().ends_with('}'), "{said}");
}

#[tokio::test]
async fn many_connections_stay_open_and_the_next_waits() {
    let most: usize = 10_000;
    raise_files();
    // Each end of a connection is a file: ours here, theirs in the server.
    let (soft, _) = files();
    let count = most.min(soft.saturating_sub(512));
    let server = Server::start(&["--header-timeout", "2m", "--max-connections", &count.to_string()]).await;
    // The client of the test keeps one connection; these take all others.
    let mut held = Vec::with_capacity(count);
    let begun = "GET /live HTTP/1.1\r\nhost: x\r\n";
    for _ in 0..count - 1 {
        let mut stream = connect(&server).await;
        stream.write_all(begun.as_bytes()).await.unwrap();
        held.push(stream);
    }
    // The server still serves that client.
    let body = json!({"input": {"prompt": "a", "num_inference_steps": 1, "width": 512}});
    assert_eq!(server.predict(&body).await.json["status"], "succeeded");
    // On a busy machine the last may still be in the backlog.
    let mut open = 0.0;
    for _ in 0..600 {
        open = server.metric("syncdiffusion_http_connections").await;
        if open >= (count - 2) as f64 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(open >= (count - 2) as f64, "{open} of {count} connections are open");
    // More are accepted once others are closed.
    let mut late = Vec::new();
    for _ in 0..2 {
        let mut stream = connect(&server).await;
        stream.write_all(b"GET /live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        late.push(stream);
    }
    held.truncate(count / 2);
    for stream in &mut late {
        assert!(rest(stream).await.starts_with("HTTP/1.1 200"));
    }
    // Idle connections are still served.
    for stream in held.iter_mut().step_by(101) {
        stream.write_all(b"connection: close\r\n\r\n").await.unwrap();
        assert!(rest(stream).await.starts_with("HTTP/1.1 200"));
    }
    eprintln!("{count} connections were open");
}

/// The soft and the hard limit of open files of this process.
fn files() -> (usize, usize) {
    let text = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let numbers: Vec<usize> = line
        .split_whitespace()
        .filter_map(|word| word.parse().ok().or((word == "unlimited").then_some(usize::MAX)))
        .collect();
    (numbers[0], numbers[1])
}

/// Raises the limit of open files to its maximum.
fn raise_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

#[tokio::test]
async fn garbage_instead_of_http_does_no_harm() {
    let server = Server::start(&[]).await;
    for nonsense in [
        "\0\0\0\0",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        "POST /predictions HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET",
        "POST /predictions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}",
    ] {
        let mut stream = connect(&server).await;
        stream.write_all(nonsense.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let said = rest(&mut stream).await;
        assert!(!said.starts_with("HTTP/1.1 2") && !said.starts_with("HTTP/1.1 5"), "{nonsense:?}: {said}");
    }
    let mut long = connect(&server).await;
    let many = format!("x-y: {}\r\n", "y".repeat(100)).repeat(5000);
    let _ = long.write_all(format!("GET / HTTP/1.1\r\nhost: x\r\n{many}\r\n").as_bytes()).await;
    let said = rest(&mut long).await;
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{said}");
    assert_eq!(server.get("/live").await.status, 200);
}

#[tokio::test]
async fn secrets_are_in_no_log_error_or_metric() {
    let secrets = [
        "api-token-1c9e",
        "file-token-77ab",
        "hook-token-d2f0",
        "wrong-token-0b3d",
        "query-secret-4e1a",
        "user-info-9f8e",
    ];
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokens");
    std::fs::write(&file, secrets[1]).unwrap();
    let flags = ["--log", "trace", "--api-token", secrets[0], "--api-token-file", file.to_str().unwrap()];
    let server = Server::launch(&flags, &[("WEBHOOK_AUTH_TOKEN", secrets[2])]);
    server.until_health(&["READY"]).await;
    let receiver = tests::Receiver::start(&[500, 400]).await;
    let mut said = String::new();
    for token in [secrets[0], secrets[1], secrets[3]] {
        let header = format!("Bearer {token}");
        let asks = |receiver: &str| json!({"webhook": format!("{receiver}/hook?key={}", secrets[4]), "input": {"prompt": "a", "num_inference_steps": 1, "width": 512}});
        // One with a password in its URL is refused.
        let refused = asks(&receiver.url.replace("http://", &format!("http://user:{}@", secrets[5])));
        let body = asks(&receiver.url);
        let path = format!("/predictions?token={}", secrets[4]);
        for (method, body) in
            [("POST", body), ("POST", refused), ("POST", json!({"input": {"width": 3}})), ("GET", json!({}))]
        {
            said += &server.json(method, &path, &[("authorization", &header)], &body).await.text;
        }
    }
    receiver.wait(|sent| sent.len() >= 4).await;
    said += &server.get("/metrics").await.text;
    said += &server.get("/health-check").await.text;
    let help = std::process::Command::new(tests::binary())
        .args(["serve", "--help"])
        .envs([("SYNCDIFFUSION_API_TOKEN", secrets[0]), ("WEBHOOK_AUTH_TOKEN", secrets[2]), ("HF_TOKEN", secrets[3])])
        .output()
        .unwrap();
    said += &String::from_utf8_lossy(&help.stdout);
    let log = server.logged("prediction ended").await;
    assert!(said.contains("syncdiffusion_http_requests_total"));
    for secret in secrets {
        assert!(
            !log.contains(secret),
            "`{secret}` is in the log:\n{}",
            log.lines().find(|line| line.contains(secret)).unwrap()
        );
        assert!(!said.contains(secret), "`{secret}` was said:\n{said}");
    }
}

#[tokio::test]
async fn a_path_that_is_not_utf_8_is_refused_in_json() {
    let server = Server::start(&[]).await;
    let body = json!({"input": {"prompt": "a"}});
    for (method, path) in [
        ("GET", "/predictions/%FF"),
        ("PUT", "/predictions/%FF"),
        ("DELETE", "/predictions/a%C3"),
        ("POST", "/predictions/%FF/cancel"),
        ("GET", "/predictions/%FF/output"),
        ("GET", "/predictions/%FF/stream"),
        ("GET", "/predictions/%FF/link"),
        ("GET", "/view/%FF/picture?key=a"),
        ("GET", "/files/%FF"),
        ("GET", "/v1/predictions/%FF"),
        ("POST", "/v1/predictions/%FF/cancel"),
        ("POST", "/v1/models/%FF/panorama/predictions"),
        ("GET", "/v1/models/%FF/panorama"),
        ("GET", "/v1/models/%FF"),
        ("GET", "/v1/files/%FF"),
        ("GET", "/v1/files/output/%FF"),
        ("GET", "/v1/files/stream/%FF"),
    ] {
        let answer = server.json(method, path, &[], &body).await;
        let kind = answer.headers["content-type"].to_str().unwrap();
        assert!(answer.status == 400 && kind.ends_with("json"), "{method} {path}: {} {kind}", answer.status);
        let said =
            if answer.json["detail"].is_string() { &answer.json["detail"] } else { &answer.json["error"]["message"] };
        assert!(said.as_str().is_some_and(|said| said.contains("UTF-8")), "{method} {path}: {}", answer.text);
    }
}

#[tokio::test]
async fn a_response_before_the_end_of_a_body_closes_the_connection() {
    let server = Server::start(&["--max-body", "1MiB", "--api-token", "right"]).await;
    let say = async |head: &str, length: usize, body: &[u8]| {
        let mut stream = connect(&server).await;
        let head = format!("{head}host: localhost\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        let mut said = String::new();
        while !said.contains("\r\n\r\n") {
            let mut part = [0; 4096];
            let length = stream.read(&mut part).await.unwrap();
            assert!(length > 0, "{said}");
            said.push_str(&String::from_utf8_lossy(&part[..length]));
        }
        let closes = said.to_lowercase().contains("\r\nconnection: close\r\n");
        (said["HTTP/1.1 ".len()..][..3].to_owned(), closes)
    };
    let with = |path: &str, token: &str| {
        format!("POST {path} HTTP/1.1\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n")
    };
    let large = vec![b' '; (1 << 20) + 1];
    for path in ["/predictions", "/v1/predictions", "/v1/images/generations", "/v1/images/edits", "/sdapi/v1/txt2img"] {
        assert_eq!(say(&with(path, "right"), 1 << 22, &large).await, ("413".to_owned(), true), "{path}");
    }
    assert_eq!(say(&with("/predictions", "wrong"), 1 << 20, b"{").await, ("401".to_owned(), true));
    assert_eq!(say(&with("/nowhere", "right"), 1 << 20, b"{").await, ("404".to_owned(), true));
    // What is little is read without anybody's help, and what was read is left out.
    assert_eq!(say(&with("/predictions", "wrong"), 2, b"{}").await, ("401".to_owned(), false));
    assert_eq!(say(&with("/predictions", "right"), 4, b"{bad").await, ("400".to_owned(), false));
}

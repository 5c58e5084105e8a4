//! Ids and texts of any kind.

use serde_json::{Value, json};
use tests::Server;
use tokio::io::AsyncWriteExt as _;

use crate::hostile::{connect, rest};

#[tokio::test]
async fn ids_are_text_and_never_a_path() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("deep/data");
    std::fs::create_dir_all(&data).unwrap();
    let server = Server::launch_in(&data, &[], &[]);
    server.until_health(&["READY"]).await;
    let input = json!({"prompt": "a", "num_inference_steps": 1, "width": 512});
    for (encoded, id) in [
        ("..%2F..%2Fescaped", "../../escaped"),
        ("%2Fetc%2Fpasswd", "/etc/passwd"),
        ("..%5C..%5Cx", "..\\..\\x"),
        ("...", "..."),
        ("a%00b", "a\0b"),
        ("%F0%9F%8F%94%20%C3%BC", "🏔 ü"),
        ("%E2%80%AEabc", "\u{202e}abc"),
        ("x%0D%0Ay%3A%20z", "x\r\ny: z"),
        ("%25", "%"),
        ("'%3B%20DROP%20TABLE%20predictions%3B--", "'; DROP TABLE predictions;--"),
        ("%3Cscript%3E", "<script>"),
    ] {
        // HTTP clients normalise such paths, so the request is written by hand.
        let made = raw(&server, "PUT", &format!("/predictions/{encoded}"), &json!({"input": input})).await;
        assert_eq!((made.0, &made.1["id"], &made.1["status"]), (200, &json!(id), &json!("succeeded")), "{encoded}");
        for path in ["", "/output", "/stream"] {
            let seen = raw(&server, "GET", &format!("/predictions/{encoded}{path}"), &Value::Null).await;
            assert_eq!(seen.0, 200, "{encoded}{path}");
        }
        let posted = server.predict(&json!({"id": id, "input": input})).await;
        assert_eq!((posted.status, &posted.json["id"]), (200, &json!(id)));
        let gone = raw(&server, "DELETE", &format!("/predictions/{encoded}"), &Value::Null).await;
        assert_eq!(gone.0, 204, "{encoded}");
    }
    // An empty id cannot be in a path, and a long one would fill the log.
    let made = server.predict(&json!({"id": "", "input": input})).await;
    assert!(made.json["id"].as_str().is_some_and(|id| id.starts_with("pred_")), "{}", made.text);
    assert_eq!(server.predict(&json!({"id": "x".repeat(1025), "input": input})).await.status, 422);
    let long = "%C3%BC".repeat(512);
    assert_eq!(raw(&server, "PUT", &format!("/predictions/{long}"), &json!({"input": input})).await.0, 200);
    assert_eq!(raw(&server, "PUT", &format!("/predictions/{long}x"), &json!({"input": input})).await.0, 422);
    // Ids are UTF-8.
    assert_eq!(raw(&server, "GET", "/predictions/%FF%FE", &Value::Null).await.0, 400);
    // Paths cannot leave the folder of files.
    for path in [
        "/../../etc/passwd",
        "/files/../../etc/passwd",
        "/files/..%2f..%2fetc%2fpasswd",
        "/files//etc/passwd",
        "/playground/../../x",
    ] {
        let answer = raw(&server, "GET", path, &Value::Null).await;
        assert!([400, 404].contains(&answer.0), "{path}: {}", answer.0);
    }
    let mut outside: Vec<String> =
        dir.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    outside.sort();
    assert_eq!(outside, ["deep"], "nothing was made outside the data folder");
    let below: Vec<String> =
        data.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(below.iter().all(|name| !name.contains("escaped")), "{below:?}");
}

/// Sends a request with this exact path; returns status and body.
async fn raw(server: &Server, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = connect(server).await;
    stream.write_all(head.as_bytes()).await.unwrap();
    let text = rest(&mut stream).await;
    let status =
        text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{path}: {text}"));
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    (status, serde_json::from_str(body).unwrap_or_default())
}

#[tokio::test]
async fn any_text_passes_through_unchanged() {
    let server = Server::start(&["--log-format", "json"]).await;
    for prompt in [
        "",
        "\0",
        "a\u{0}b\r\n\t",
        "ünï 漢字 🏔️ \u{202e}",
        "\u{1b}[31mred\u{7}",
        "\"\\</script>",
        "\u{fffd}\u{10ffff}",
        "{{7*7}} ${x}",
    ] {
        let body =
            json!({"input": {"prompt": prompt, "negative_prompt": prompt, "num_inference_steps": 1, "width": 512}});
        let answer = server.predict(&body).await;
        assert_eq!((answer.status, &answer.json["status"]), (200, &json!("succeeded")), "{prompt:?}: {}", answer.text);
        assert_eq!(answer.json["input"]["prompt"], json!(prompt));
    }
    // Lone surrogates and invalid UTF-8 are rejected.
    for body in
        [&br#"{"input":{"prompt":"\ud800"}}"#[..], b"{\"input\":{\"prompt\":\"\xff\xfe\"}}", b"\xff\xfe{}", b"\0"]
    {
        let request =
            server.request("POST", "/predictions").header("content-type", "application/json").body(body.to_vec());
        let answer = server.send(request).await;
        assert!([400, 422].contains(&answer.status), "{}", answer.text);
        assert!(answer.json["detail"].is_string(), "{}", answer.text);
    }
    // Headers with any byte that a client can send.
    for name in [
        "prefer",
        "accept",
        "cancel-after",
        "last-event-id",
        "traceparent",
        "x-request-id",
        "authorization",
        "content-type",
        "host",
    ] {
        for value in [&b"\xff\xfe"[..], "ü".as_bytes(), b"\t", b"a,b;c=\"d", &[b'x'; 10_000]] {
            let request = server.request("PUT", "/predictions/h");
            let request = request.header(name, reqwest::header::HeaderValue::from_bytes(value).unwrap()).body("{}");
            let answer = server.send(request).await;
            assert!(answer.status < 500, "{name}: {value:?}: {} {}", answer.status, answer.text);
        }
    }
    crate::telemetry::lines(&server);
}

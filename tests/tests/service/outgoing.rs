//! The SSRF guard: URLs of clients that lead to private addresses are not called, however they are written.

use serde_json::{Value, json};
use tests::{Receiver, Server};

const GUARDED: [&str; 1] = ["--allow-private-urls=false"];

fn body(field: &str, url: &str) -> Value {
    json!({field: url, "input": {"prompt": "a", "num_inference_steps": 1, "width": 512}})
}

#[tokio::test]
async fn private_urls_are_rejected_with_the_request() {
    let server = Server::start(&GUARDED).await;
    for url in [
        "http://127.0.0.1/x",
        "http://localhost:80/x",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://0177.0.0.1/",
        "http://127.1/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/",
        "http://192.168.1.1/",
        "http://172.16.0.1/",
        "http://100.64.0.1/",
        "http://[fd00::1]/",
        "http://[fe80::1]/",
        "http://0.0.0.0/",
        "http://224.0.0.1/",
        "http://①②⑦.⓪.⓪.①/",
        "http://user:hush@example.com/",
        "http://hush@example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://example.com/",
        "//example.com/",
        "example.com",
        "http://",
        "",
    ] {
        for field in ["webhook", "output_file_prefix"] {
            let refused = server.predict(&body(field, url)).await;
            // The appended file name becomes part of the host.
            if (field, url) == ("output_file_prefix", "http://") {
                assert_eq!(refused.json["status"], json!("failed"), "{}", refused.text);
                continue;
            }
            assert_eq!(refused.status, 422, "{field} {url}: {}", refused.text);
            assert_eq!(refused.json["detail"][0]["loc"], json!(["body", field]), "{url}: {}", refused.text);
            assert!(!refused.text.contains("hush"), "{}", refused.text);
        }
    }
    assert!(!server.log().contains("hush"));
    // Long ones are stored with their prediction, and cannot be called.
    for length in [8193, 70_000, 5 << 20] {
        let url = format!("https://example.com/{}/", "x".repeat(length - "https://example.com//".len()));
        for field in ["webhook", "output_file_prefix"] {
            let refused = server.predict(&body(field, &url)).await;
            assert_eq!((refused.status, &refused.json["detail"][0]["loc"]), (422, &json!(["body", field])), "{length}");
            assert!(refused.text.contains("8192 bytes") && refused.text.len() < 500, "{length}");
        }
        let input = json!({"prompt": "a", "num_inference_steps": 1});
        let asks = json!({"input": input, "webhook": url});
        let refused = server.json("POST", "/v1/models/syncdiffusion/panorama/predictions", &[], &asks).await;
        assert!(refused.status == 422 && refused.text.contains("8192 bytes"), "{length}: {}", refused.status);
        for field in ["webhook", "user", "safety_identifier"] {
            let asks = json!({"prompt": "a", "num_inference_steps": 1, field: url});
            let refused = server.json("POST", "/v1/images/generations", &[], &asks).await;
            assert_eq!((refused.status, &refused.json["error"]["param"]), (400, &json!(field)), "{length}");
            assert!(refused.text.contains("8192 bytes"), "{length}");
        }
    }
    let kept = server.get("/predictions").await.json["results"].as_array().map(Vec::len);
    assert_eq!(kept, Some(1), "only the one of above was accepted");
    let told = server.predict(&body("webhook", "http://127.0.0.1/x")).await.text;
    assert!(told.contains("`127.0.0.1` is a loopback address") && told.contains("--allow-private-urls"), "{told}");
}

#[tokio::test]
async fn behind_a_proxy_private_urls_are_rejected_by_default() {
    // `Server` listens on the loopback interface, where everything that a proxy passes on comes from.
    let server = Server::start(&["--public-url", "https://panorama.example.com"]).await;
    for field in ["webhook", "output_file_prefix"] {
        let refused = server.predict(&body(field, "http://127.0.0.1/x")).await;
        assert!(refused.status == 422 && refused.text.contains("--allow-private-urls"), "{}", refused.text);
    }
    let given = json!({"input": {"prompt": "a", "image": "http://127.0.0.1/x.png", "width": 1024}});
    let refused = server.predict(&given).await;
    assert!(refused.status == 422 && refused.text.contains("--allow-private-urls"), "{}", refused.text);
}

#[tokio::test]
async fn a_pending_webhook_is_checked_against_the_current_rules() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[500; 100]).await;
    let mut server = Server::launch_in(dir.path(), &[], &[]);
    server.until_health(&["READY"]).await;
    let mut body = body("webhook", &format!("{}/hook?token=hush", receiver.url));
    body["webhook_events_filter"] = json!(["completed"]);
    server.predict(&body).await;
    receiver.wait(|sent| !sent.is_empty()).await;
    server.kill();
    let before = receiver.sent().len();
    let server = Server::launch_in(dir.path(), &GUARDED, &[]);
    server.logged("`127.0.0.1` is a loopback address").await;
    assert_eq!(receiver.sent().len(), before);
    assert!(!server.log().contains("hush"), "{}", server.log());
}

#[tokio::test]
async fn proxies_of_the_environment_do_not_bypass_the_guard() {
    let proxy = Receiver::start(&[]).await;
    let environment = [("http_proxy", proxy.url.as_str()), ("HTTPS_PROXY", &proxy.url), ("ALL_PROXY", &proxy.url)];
    let server = Server::launch(&GUARDED, &environment);
    server.until_health(&["READY"]).await;
    // The name is too long for DNS, so only a proxy could be reached by it.
    let nowhere = format!("http://{}.invalid/", "a".repeat(70));
    let mut body = body("output_file_prefix", &nowhere);
    body["webhook"] = json!(nowhere);
    body["webhook_events_filter"] = json!(["start"]);
    let answer = server.predict(&body).await.json;
    assert_eq!(answer["status"], "failed");
    assert!(
        answer["error"].as_str().unwrap().starts_with("Failed to upload output: upload request failed:"),
        "{answer}"
    );
    assert_eq!(proxy.sent().len(), 0);
}

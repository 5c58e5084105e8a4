//! Pictures in buckets: the requests to an S3 store, against a receiver that responds like one; and, by `make test-s3`,
//! against a real store, which checks every signature.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{Receiver, Server};

const KEYS: [(&str, &str); 3] =
    [("AWS_ACCESS_KEY_ID", "key-1"), ("AWS_SECRET_ACCESS_KEY", "hush-hush"), ("AWS_REGION", "eu-north-1")];

fn body(id: &str) -> Value {
    json!({"id": id, "input": {"prompt": "日本", "num_inference_steps": 1, "width": 512}})
}

async fn server(flags: &[&str], endpoint: &str) -> Server {
    let server = Server::launch(&[flags, &["--s3-endpoint", endpoint]].concat(), &KEYS);
    server.until_health(&["READY"]).await;
    server
}

#[tokio::test]
async fn a_picture_is_uploaded_to_a_bucket() {
    let receiver = Receiver::start(&[503]).await;
    let server = server(&["--output", "s3://pictures/日本/of mine"], &receiver.url).await;
    let answer = server.predict(&body("../a")).await.json;
    assert_eq!(answer["status"], "succeeded", "{answer}");
    let sent = receiver.sent();
    assert_eq!(sent.len(), 2, "a failure of the store is retried");
    let put = &sent[1];
    let header = |name: &str| put.headers[name].to_str().unwrap();
    assert_eq!((header("content-type"), header("content-disposition")), ("image/png", "inline"));
    assert_eq!(header("cache-control"), "public, max-age=31536000, immutable");
    assert!(header("authorization").starts_with("AWS4-HMAC-SHA256 Credential=key-1/"), "{put:?}");
    assert!(header("authorization").contains("/eu-north-1/s3/aws4_request"), "{put:?}");
    assert!(put.body.starts_with(b"\x89PNG") && put.body.ends_with(b"IEND\xaeB`\x82"));
    let name =
        put.path.strip_prefix("/pictures/%E6%97%A5%E6%9C%AC/of%20mine/").unwrap_or_else(|| panic!("{}", put.path));
    assert!(name.len() == 44 && name.strip_suffix(".png").is_some(), "{name}");

    let output = answer["output"].as_str().unwrap();
    assert!(output.starts_with(&format!("{}{}?", receiver.url, put.path)), "{output}");
    assert!(output.contains("X-Amz-Expires=604800") && output.contains("X-Amz-Signature="), "{output}");
    assert_eq!(server.get("/predictions").await.json["results"][0]["output"], answer["output"]);
    assert_eq!(server.get("/predictions/..%2Fa/output").await.status, 200);
    assert!(!server.log().contains("hush") && !answer.to_string().contains("hush"));
}

#[tokio::test]
async fn a_public_bucket_has_plain_urls() {
    let receiver = Receiver::start(&[]).await;
    let plain = server(&["--output", "s3://pictures", "--s3-url", "public"], &receiver.url).await;
    let output = plain.predict(&body("a")).await.json["output"].as_str().unwrap().to_owned();
    assert_eq!(output, format!("{}{}", receiver.url, receiver.sent()[0].path));
    let flags = ["--output", "s3://pictures/p", "--s3-url", "public", "--s3-public-url", "https://cdn.example/x/"];
    let output =
        server(&flags, &receiver.url).await.predict(&body("a")).await.json["output"].as_str().unwrap().to_owned();
    let name = receiver.sent()[1].path.strip_prefix("/pictures/p/").unwrap().to_owned();
    assert_eq!(output, format!("https://cdn.example/x/p/{name}"));
}

#[tokio::test]
async fn a_failing_bucket_fails_the_prediction_but_keeps_the_picture() {
    for (answers, error, attempts) in
        [(&[403][..], "it answered 403 Forbidden", 1), (&[500, 503, 500], "it answered 500 Internal Server Error", 3)]
    {
        let receiver = Receiver::start(answers).await;
        let server = server(&["--output", "s3://pictures"], &receiver.url).await;
        let answer = server.predict(&body("a")).await.json;
        assert_eq!(answer["status"], "failed");
        assert_eq!(answer["error"], format!("Failed to upload output: the bucket could not be written to: {error}"));
        let kept = format!("the picture is kept: GET {}/predictions/a/output\n", server.url);
        assert!(answer["logs"].as_str().unwrap().ends_with(&kept), "{answer}");
        assert_eq!(receiver.sent().len(), attempts);
        assert_eq!(server.get("/predictions/a/output").await.status, 200);
        assert!(!server.log().contains("hush"));
    }
    let answer = server(&["--output", "s3://pictures"], "http://127.0.0.1:1").await.predict(&body("a")).await.json;
    assert!(answer["error"].as_str().unwrap().contains("Connection refused"), "{answer}");
}

/// A real store, run by `make test-s3`. Dropping it kills it.
struct Store {
    child: Child,
    url: String,
}

impl Store {
    async fn start(root: &Path) -> Self {
        let program = std::env::var("S3_SERVER").expect("`S3_SERVER` names the program; `make test-s3` sets it");
        std::fs::create_dir(root.join("pictures")).expect("a folder for the bucket");
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(program);
        command.args([
            "--host",
            "127.0.0.1",
            "--port",
            &port.to_string(),
            "--access-key",
            KEYS[0].1,
            "--secret-key",
            KEYS[1].1,
        ]);
        let child = command.arg(root).stdout(Stdio::null()).spawn().expect("the store can be started");
        let end = Instant::now() + Duration::from_secs(30);
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            assert!(Instant::now() < end, "the store does not listen");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Self { child, url: format!("http://127.0.0.1:{port}") }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
#[ignore = "needs a store; `make test-s3` builds and runs one"]
async fn a_real_store() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::start(root.path()).await;
    let signed = server(&["--output", "s3://pictures/日本/of mine"], &store.url).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = signed.predict(&body("a")).await.json;
    assert_eq!(answer["status"], "succeeded", "{answer}");
    let url = answer["output"].as_str().unwrap();
    let got = client.get(url).send().await.unwrap();
    assert_eq!((got.status().as_u16(), got.headers()["content-type"].as_bytes()), (200, &b"image/png"[..]));
    let kept = signed.send(signed.request("GET", "/predictions/a/output")).await;
    assert_eq!(
        (kept.status, got.bytes().await.unwrap().len()),
        (200, kept.headers["content-length"].to_str().unwrap().parse().unwrap())
    );
    let forged = url.replace("X-Amz-Expires=604800", "X-Amz-Expires=604799");
    assert_eq!(client.get(forged).send().await.unwrap().status(), 403);
    assert_eq!(client.get(url.split('?').next().unwrap()).send().await.unwrap().status(), 403);
    let files = std::fs::read_dir(root.path().join("pictures/日本/of mine")).unwrap();
    assert_eq!(files.count(), 1);

    let short = server(&["--output", "s3://pictures", "--s3-presign-for", "1s"], &store.url).await;
    let url = short.predict(&body("a")).await.json["output"].as_str().unwrap().to_owned();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(client.get(url).send().await.unwrap().status(), 403, "the link has expired");

    let wrong = Server::launch(
        &["--output", "s3://pictures", "--s3-endpoint", &store.url],
        &[KEYS[0], ("AWS_SECRET_ACCESS_KEY", "wrong-hush")],
    );
    wrong.until_health(&["READY"]).await;
    let refused = wrong.predict(&body("a")).await.json;
    assert!(refused["error"].as_str().unwrap().contains("SignatureDoesNotMatch"), "{refused}");
    assert!(!wrong.log().contains("hush") && !refused.to_string().contains("hush"));
    assert_eq!(wrong.get("/predictions/a/output").await.status, 200);
}

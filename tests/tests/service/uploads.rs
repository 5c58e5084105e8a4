//! Pictures sent to `--upload-url` or to the `output_file_prefix` of a request.

use std::time::Duration;

use serde_json::{Value, json};
use tests::{Receiver, Server};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

fn body() -> Value {
    json!({"id": "up", "input": {"prompt": "a", "num_inference_steps": 1, "width": 512}})
}

#[tokio::test]
async fn a_picture_is_uploaded() {
    let receiver = Receiver::start(&[500]).await;
    let server = Server::start(&["--upload-url", &format!("{}/some/place", receiver.url)]).await;
    let answer = server.predict(&body()).await.json;
    assert_eq!(
        (&answer["status"], &answer["output"]),
        (&json!("succeeded"), &json!(format!("{}/some/place/output.png", receiver.url)))
    );
    assert_eq!(server.get("/predictions/up").await.json, answer);
    assert_eq!(server.get("/predictions").await.json["results"][0]["output"], answer["output"]);
    let sent = receiver.sent();
    assert_eq!(sent.len(), 2, "a failure of the receiver is tried again");
    assert_eq!(
        (sent[1].path.as_str(), sent[1].headers["content-type"].to_str().unwrap()),
        ("/some/place/output.png", "image/png")
    );
    assert_eq!(sent[1].headers["x-prediction-id"], "up");
}

#[tokio::test]
async fn a_failed_upload_fails_the_prediction_but_keeps_the_picture() {
    let receiver = Receiver::start(&[403]).await;
    let server = Server::start(&["--upload-url", &receiver.url]).await;
    let answer = server.predict(&body()).await.json;
    assert_eq!(answer["status"], "failed");
    assert_eq!(answer["error"], "Failed to upload output: upload returned status 403 Forbidden");
    assert_eq!(answer["output"], json!(null));
    let kept = format!("the picture is kept: GET {}/predictions/up/output\n", server.url);
    assert!(answer["logs"].as_str().unwrap().ends_with(&kept), "{answer}");
    assert_eq!(server.get("/predictions/up").await.json, answer);
    assert_eq!(server.get("/predictions/up/output").await.status, 200);
}

#[tokio::test]
async fn credentials_of_the_operator_are_not_exposed() {
    let receiver = Receiver::start(&[500, 500, 500]).await;
    let url = format!("{}/place?sig=hush", receiver.url.replace("http://", "http://user:hush@"));
    let server = Server::start(&["--upload-url", &url]).await;
    for _ in 0..2 {
        let answer = server.predict(&body()).await.json;
        assert!(!answer.to_string().contains("hush"), "{answer}");
    }
    assert!(receiver.sent()[3].headers["authorization"].to_str().unwrap().starts_with("Basic "));
    assert!(!server.log().contains("hush"), "{}", server.log());
}

#[tokio::test]
async fn a_request_chooses_where_its_picture_goes() {
    let receiver = Receiver::start(&[]).await;
    let server = Server::start(&["--upload-url", "http://127.0.0.1:1/usual"]).await;
    let mut body = body();
    body["output_file_prefix"] = json!(format!("{}/mine/a-", receiver.url));
    let answer = server.predict(&body).await.json;
    assert_eq!(answer["output"], json!(format!("{}/mine/a-output.png", receiver.url)), "{answer}");
    let sent = receiver.sent();
    assert_eq!((sent.len(), sent[0].path.as_str()), (1, "/mine/a-output.png"));
    let kind = sent[0].headers["content-type"].to_str().unwrap();
    let boundary = kind.strip_prefix("multipart/form-data; boundary=").unwrap();
    let head = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"output.png\"\r\nContent-Type: image/png\r\n\r\n"
    );
    let picture = sent[0].body.strip_prefix(head.as_bytes()).unwrap();
    let picture = picture.strip_suffix(format!("\r\n--{boundary}--\r\n").as_bytes()).unwrap();
    assert!(picture.starts_with(b"\x89PNG") && picture.ends_with(b"IEND\xaeB`\x82"));

    body["output_file_prefix"] = json!("file:///tmp/");
    let refused = server.predict(&body).await;
    assert_eq!(refused.status, 422);
    assert_eq!(refused.json["detail"][0]["loc"], json!(["body", "output_file_prefix"]));
}

#[tokio::test]
async fn a_cancellation_aborts_an_upload() {
    // Reads a picture and never responds.
    let receiver = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", receiver.local_addr().unwrap());
    let server = Server::start(&["--upload-url", &url]).await;
    server.predict_async(&body()).await;
    let (mut sending, _) = receiver.accept().await.unwrap();
    assert!(sending.read(&mut [0; 1024]).await.unwrap() > 0);
    assert_eq!(server.json("POST", "/predictions/up/cancel", &[], &json!({})).await.status, 200);
    assert_eq!(server.ended("up").await["status"], "canceled");
    let aborted = tokio::time::timeout(Duration::from_secs(30), async {
        let mut rest = vec![0; 1 << 16];
        while sending.read(&mut rest).await.is_ok_and(|read| read > 0) {}
    });
    assert!(aborted.await.is_ok(), "the connection is still open");
    assert_eq!(server.get("/predictions/up/output").await.status, 404);
}

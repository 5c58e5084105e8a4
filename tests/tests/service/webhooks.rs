//! Webhooks: what is sent and when, and that the end of a prediction always arrives.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde_json::{Value, json};
use tests::{Receiver, Sent, Server};

use crate::contract::assert_whole;

fn body(receiver: &Receiver, prompt: &str, filter: Option<Value>) -> Value {
    let mut body = json!({"id": "w", "webhook": format!("{}/hook", receiver.url), "input": {"prompt": prompt, "num_inference_steps": 30}});
    if let Some(filter) = filter {
        body["webhook_events_filter"] = filter;
    }
    body
}

fn completed(sent: &[Sent]) -> bool {
    sent.last().is_some_and(|sent| sent.json["completed_at"].is_string())
}

#[tokio::test]
async fn the_four_events() {
    let (server, receiver) = (Server::start(&[]).await, Receiver::start(&[]).await);
    let trace = [
        ("prefer", "respond-async"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("tracestate", "a=b"),
    ];
    let answer = server.json("POST", "/predictions", &trace, &body(&receiver, "step=50", None)).await;
    assert_eq!(answer.status, 202);
    let sent = receiver.wait(completed).await;
    for one in &sent {
        assert_whole(&one.json);
        assert_eq!((one.path.as_str(), one.headers["content-type"].to_str().unwrap()), ("/hook", "application/json"));
        assert_eq!(one.headers["traceparent"], trace[1].1);
        assert_eq!(one.headers["tracestate"], "a=b");
    }
    let first = &sent[0].json;
    assert_eq!((&first["status"], &first["logs"], &first["output"]), (&json!("processing"), &json!(""), &json!(null)));
    let logs = &sent[1..sent.len() - 2];
    assert!((2..15).contains(&logs.len()), "{} webhooks for the logs of 30 steps: they are throttled", logs.len());
    assert!(logs.iter().all(|one| one.json["status"] == "processing" && one.json["logs"] != ""));
    let output = &sent[sent.len() - 2].json;
    assert_eq!((&output["status"], output["output"].as_array().unwrap().len()), (&json!("processing"), 1));
    let last = &sent[sent.len() - 1].json;
    assert_eq!(last["output"], output["output"][0]);
    assert_eq!(last, &server.get("/predictions/w").await.json);
}

#[tokio::test]
async fn events_can_be_filtered() {
    let server = Server::start(&[]).await;
    for (filter, wanted) in [
        (json!(["completed"]), 1),
        (json!(["start", "output"]), 2),
        (json!([]), 0),
        (json!(["output", "completed"]), 2),
    ] {
        let receiver = Receiver::start(&[]).await;
        let answer = server.predict(&body(&receiver, "a", Some(filter.clone()))).await;
        assert_eq!(answer.json["status"], "succeeded");
        receiver.wait(|sent| sent.len() >= wanted).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(receiver.sent().len(), wanted, "{filter}");
    }
}

#[tokio::test]
async fn throttled_logs_are_sent_when_the_interval_ends() {
    let (server, receiver) = (Server::start(&["--webhook-interval", "0.1"]).await, Receiver::start(&[]).await);
    // The first step is logged at once, the second after three seconds.
    let mut request = body(&receiver, "step=3000", Some(json!(["start", "logs"])));
    request["input"]["num_inference_steps"] = 2.into();
    server.predict_async(&request).await;
    let sent = receiver.wait(|sent| sent.len() == 2).await;
    assert!(sent[1].json["logs"].as_str().unwrap().contains("1/2"), "{sent:#?}");
    assert!(!sent[1].json["logs"].as_str().unwrap().contains("2/2"), "it is not held until the next line: {sent:#?}");
}

#[tokio::test]
async fn only_the_end_is_retried() {
    let server = Server::start(&[]).await;
    let receiver = Receiver::start(&[500, 503, 429]).await;
    server.predict(&body(&receiver, "a", Some(json!(["start", "completed"])))).await;
    let sent = receiver.wait(|sent| sent.len() == 4).await;
    let statuses: Vec<&Value> = sent.iter().map(|sent| &sent.json["status"]).collect();
    assert_eq!(statuses, ["processing", "succeeded", "succeeded", "succeeded"]);

    let receiver = Receiver::start(&[404]).await;
    server.predict(&body(&receiver, "a", Some(json!(["completed"])))).await;
    server.until_metric(r#"syncdiffusion_webhooks_total{result="refused"}"#, 1.0).await;
    assert_eq!(receiver.sent().len(), 1, "a refusal is final");
}

#[tokio::test]
async fn a_pending_end_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[500, 500, 500]).await;
    let mut server = Server::launch_in(dir.path(), &[], &[]);
    server.until_health(&["READY"]).await;
    server.predict(&body(&receiver, "a", Some(json!(["completed"])))).await;
    receiver.wait(|sent| !sent.is_empty()).await;
    server.kill();
    let before = receiver.sent().len();
    let server = Server::launch_in(dir.path(), &[], &[]);
    let sent = receiver.wait(|sent| sent.len() > before).await;
    let ended = server.get("/predictions/w").await.json;
    assert!(sent.iter().all(|sent| sent.json == ended));
    assert!(
        sent.iter().all(|one| one.headers["webhook-id"] == sent[0].headers["webhook-id"]),
        "it is the same message"
    );
    assert!(ended["output"].as_str().unwrap().starts_with("data:image/png"));
}

#[tokio::test]
async fn an_id_whose_end_is_pending_is_used_again_only_after_it_is_given_up() {
    let server = Server::start(&[]).await;
    let receiver = Receiver::start(&[500; 50]).await;
    let first = server.predict(&body(&receiver, "a", Some(json!(["completed"])))).await;
    let refused = server.predict(&body(&receiver, "a", None)).await;
    assert_eq!((refused.status, &refused.json["status"]), (409, &json!("failed")), "{}", refused.text);
    assert!(refused.json["error"].as_str().unwrap().contains("webhook of prediction `w`"), "{}", refused.text);
    assert_eq!(server.json("PUT", "/predictions/w", &[], &json!({"input": {"prompt": "b"}})).await.json, first.json);
    assert_eq!(server.send(server.request("DELETE", "/predictions/w")).await.status, 204);
    assert_eq!(server.predict(&body(&receiver, "a", None)).await.status, 200);
}

#[tokio::test]
async fn the_auth_token_is_sent() {
    let (server, receiver) = (Server::start(&["--webhook-auth-token", "tok123"]).await, Receiver::start(&[]).await);
    server.predict(&body(&receiver, "fail", Some(json!(["completed"])))).await;
    let sent = receiver.wait(completed).await;
    assert_eq!(sent[0].headers["authorization"], "Bearer tok123");
    assert_eq!(sent[0].json["error"], "the stand-in was told to fail");
    assert!(!server.log().contains("tok123"));
}

/// Verifies a webhook as a receiver does.
fn verify(sent: &Sent, secret: &str) -> bool {
    let header = |name: &str| sent.headers[name].to_str().unwrap();
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let signed = [format!("{}.{}.", header("webhook-id"), header("webhook-timestamp")).as_bytes(), &sent.body].concat();
    let signature = STANDARD.decode(header("webhook-signature").strip_prefix("v1,").unwrap()).unwrap();
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &key), &signed, &signature).is_ok()
}

#[tokio::test]
async fn every_webhook_is_signed_with_the_secret_of_the_data_folder() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[200, 200, 500]).await;
    let mut server = Server::launch_in(dir.path(), &[], &[]);
    server.until_health(&["READY"]).await;
    let path = dir.path().join("webhook-secret");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let secret = std::fs::read_to_string(&path).unwrap().trim().to_owned();
    let mut unicode = body(&receiver, "日本 🏔", Some(json!(["start", "output", "completed"])));
    unicode["id"] = json!("ü/日本 🏔");
    server.predict(&unicode).await;
    let sent = receiver.wait(|sent| sent.len() == 4).await;
    assert!(sent.iter().all(|one| verify(one, &secret)), "{sent:#?}");
    let ids: Vec<_> = sent.iter().map(|one| one.headers["webhook-id"].to_str().unwrap()).collect();
    assert!(ids[2] == ids[3] && ids[0] != ids[1] && ids[1] != ids[2], "the same end has the same id: {ids:?}");
    assert_eq!(sent[3].json["id"], "ü/日本 🏔");

    // It is kept across restarts, and not exposed.
    let refused = server.get("/v1/webhooks/default/secret").await;
    let told = refused.json["detail"].as_str().unwrap_or_default();
    // In a folder, or in a database.
    assert!(refused.status == 404 && told.contains("`webhook-secret`") && told.contains("`webhook_secret`"), "{told}");
    server.kill();
    assert!(!server.log().contains(&secret));
    let server = Server::launch_in(dir.path(), &["--show-webhook-secret"], &[]);
    assert_eq!(server.get("/v1/webhooks/default/secret").await.json, json!({ "key": secret }));
}

#[tokio::test]
async fn the_secret_can_be_configured() {
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let (server, receiver) = (Server::start(&["--webhook-secret", secret]).await, Receiver::start(&[]).await);
    server.predict(&body(&receiver, "a", Some(json!(["completed"])))).await;
    assert!(verify(&receiver.wait(completed).await[0], secret));
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (server, receiver) = (Server::start(&[]).await, Receiver::start(&[307]).await);
    server.predict(&body(&receiver, "a", Some(json!(["completed"])))).await;
    receiver.wait(|sent| !sent.is_empty()).await;
    server.until_metric(r#"syncdiffusion_webhooks_total{result="refused"}"#, 1.0).await;
    assert_eq!(receiver.sent().len(), 1);
    server.logged("the receiver answered 307; redirects are not followed").await;
}

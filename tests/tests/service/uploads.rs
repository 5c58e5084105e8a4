//! Pictures that are sent to `--upload-url`.

use serde_json::{Value, json};
use tests::{Receiver, Server};

fn body() -> Value {
    json!({"id": "up", "input": {"prompt": "a", "num_inference_steps": 1, "width": 512}})
}

#[tokio::test]
async fn a_picture_goes_where_it_is_sent() {
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
async fn a_picture_that_cannot_be_sent_fails_the_prediction_and_is_kept() {
    let receiver = Receiver::start(&[403]).await;
    let server = Server::start(&["--upload-url", &receiver.url]).await;
    let answer = server.predict(&body()).await.json;
    assert_eq!(answer["status"], "failed");
    assert_eq!(answer["error"], "Failed to upload output: upload returned status 403 Forbidden");
    assert_eq!(answer["output"], json!(null));
    assert_eq!(server.get("/predictions/up").await.json, answer);
    assert_eq!(server.get("/predictions/up/output").await.status, 200);
}

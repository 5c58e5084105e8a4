//! Server-sent events.

use std::time::Duration;

use serde_json::{Value, json};
use tests::Server;

/// The frames of a stream: id, name, data.
fn frames(text: &str) -> Vec<(String, String, Value)> {
    let field = |frame: &str, name: &str| {
        let found = frame.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        found.unwrap_or_default().to_owned()
    };
    text.split("\n\n")
        .filter(|frame| frame.contains("event:"))
        .map(|frame| (field(frame, "id"), field(frame, "event"), serde_json::from_str(&field(frame, "data")).unwrap()))
        .collect()
}

#[tokio::test]
async fn a_post_can_stream_events() {
    let server = Server::start(&[]).await;
    let body = json!({"id": "s", "input": {"prompt": "a", "num_inference_steps": 2}});
    let answer = server.json("POST", "/predictions", &[("accept", "text/event-stream")], &body).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "text/event-stream");
    assert_eq!(answer.headers["x-accel-buffering"], "no");
    assert_eq!(answer.headers["cache-control"], "no-cache");
    let frames = frames(&answer.text);
    let names: Vec<&str> = frames.iter().map(|(_, name, _)| name.as_str()).collect();
    assert_eq!(names, ["start", "progress", "log", "progress", "log", "output", "metric", "completed"]);
    assert_eq!(frames[0].2, json!({"id": "s", "status": "processing"}));
    assert_eq!(frames[2].2["source"], "stderr");
    assert!(frames[2].2["data"].as_str().unwrap().ends_with('\n'));
    assert_eq!(frames[5].2["index"], 0);
    assert_eq!(frames[6].2["name"], "predict_time");
    let completed = &frames[7].2;
    assert_eq!(completed["status"], "succeeded");
    assert_eq!(completed["output"], frames[5].2["chunk"]);
    assert_eq!(&server.get("/predictions/s").await.json, completed);

    let refused = server.json("POST", "/predictions", &[("accept", "text/event-stream")], &json!({})).await;
    assert_eq!(refused.status, 422);
}

#[tokio::test]
async fn what_has_ended_is_streamed_to_those_who_repeat_their_request() {
    let server = Server::start(&[]).await;
    let body = json!({"input": {"prompt": "a", "num_inference_steps": 2}});
    let streams = ("accept", "text/event-stream");
    let put = server.json("PUT", "/predictions/p", &[], &body).await.json;
    let posted = server.json("POST", "/predictions", &[("idempotency-key", "k")], &body).await.json;
    for (method, path, headers, ended) in [
        ("PUT", "/predictions/p", &[streams][..], &put),
        ("POST", "/predictions", &[streams, ("idempotency-key", "k")], &posted),
    ] {
        assert_eq!(ended["status"], "succeeded");
        let answer = server.json(method, path, headers, &body).await;
        assert_eq!((answer.status, &answer.headers["content-type"]), (200, &"text/event-stream".parse().unwrap()));
        let frames = frames(&answer.text);
        let (_, name, data) = frames.last().unwrap_or_else(|| panic!("{}", answer.text));
        assert_eq!((name.as_str(), data), ("completed", ended));
        // Whoever wants no events is answered as before.
        assert_eq!(server.json(method, path, &headers[1..], &body).await.json, *ended);
    }
}

/// Previews have no ids, and are for streams that ask for them only.
#[tokio::test]
async fn a_stream_can_ask_for_previews() {
    let server = Server::start(&[]).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("go").display().to_string();
    let body = json!({"id": "s", "input": {"prompt": format!("until={file}"), "num_inference_steps": 4}});
    let post = server.request("POST", "/predictions").header("content-type", "application/json");
    let post = post.header("accept", "text/event-stream").header("prefer", "preview").body(body.to_string());
    let mut stream = post.send().await.unwrap();
    let mut text = String::new();
    let read = |text: &mut String, chunk: &[u8]| text.push_str(&String::from_utf8_lossy(chunk));
    while !text.contains("event: preview") || !text.ends_with("\n\n") {
        read(&mut text, &stream.chunk().await.unwrap().expect("the stream goes on"));
    }
    // Others may ask later: they see the newest at once.
    let mut query = server.request("GET", "/predictions/s/stream?preview=true").send().await.unwrap();
    let mut late = String::new();
    while !late.contains("event: preview") {
        read(&mut late, &query.chunk().await.unwrap().expect("the stream goes on"));
    }
    let unasked = server.request("GET", "/predictions/s/stream").send().await.unwrap();
    std::fs::write(&file, "").unwrap();
    while let Some(chunk) = stream.chunk().await.unwrap() {
        read(&mut text, &chunk);
    }
    let seen = frames(&text);
    let (previews, others): (Vec<_>, Vec<_>) = seen.into_iter().partition(|(_, name, _)| name == "preview");
    let (id, _, preview) = &previews[0];
    assert_eq!((id.as_str(), &preview["width"], &preview["height"]), ("", &json!(256), &json!(64)));
    assert!(preview["image"].as_str().unwrap().starts_with("data:image/png;base64,iVBOR"));
    assert!(preview["step"].as_u64().is_some_and(|step| (1..=4).contains(&step)), "{preview}");
    assert_eq!(others, frames(&unasked.text().await.unwrap()), "nothing else changes");
    assert_eq!(server.get("/predictions/s/stream?preview=perhaps").await.status, 400);
}

#[tokio::test]
async fn a_stream_can_be_resumed() {
    let server = Server::start(&[]).await;
    let body = json!({"id": "s", "input": {"prompt": "step=40", "num_inference_steps": 10}});
    server.predict_async(&body).await;
    server.until("/predictions/s", |is| is["metrics"]["step"].as_u64() > Some(2)).await;
    let (whole, rest, foreign, attached) = tokio::join!(
        server.get("/predictions/s/stream"),
        server.send(server.request("GET", "/predictions/s/stream").header("last-event-id", "5")),
        // An id that this process has not used is that of an earlier one.
        server.send(server.request("GET", "/predictions/s/stream").header("last-event-id", "500")),
        server.json("PUT", "/predictions/s", &[("accept", "text/event-stream")], &body),
    );
    let whole = frames(&whole.text);
    assert_eq!(whole[0].1, "start");
    assert!(whole[5..] == frames(&rest.text)[..]);
    assert!(whole == frames(&attached.text) && whole == frames(&foreign.text));
    let ids: Vec<u64> = whole.iter().map(|(id, _, _)| id.parse().unwrap()).collect();
    assert!(ids.iter().copied().eq(1..=whole.len() as u64), "{ids:?}");

    let after = frames(&server.get("/predictions/s/stream").await.text);
    assert_eq!((after.len(), after[0].1.as_str()), (1, "completed"));
    assert_eq!(after[0].2, whole.last().unwrap().2);
    let nothing =
        server.send(server.request("GET", "/predictions/s/stream").header("last-event-id", &after[0].0)).await;
    assert_eq!(nothing.status, 204);
    assert_eq!(server.get("/predictions/x/stream").await.status, 404);
}

#[tokio::test]
async fn a_stream_ends_with_the_server() {
    let mut server = Server::start(&["--grace", "100ms"]).await;
    server.predict_async(&json!({"id": "s", "input": {"prompt": "step=100", "num_inference_steps": 200}})).await;
    let (answer, ()) = tokio::join!(server.get("/predictions/s/stream"), async {
        server.until("/predictions/s", |is| is["metrics"]["step"].as_u64() > Some(1)).await;
        server.signal("TERM");
    });
    assert!(frames(&answer.text).iter().all(|(_, name, _)| name != "completed"));
    assert!(server.exit().await.success());
}

#[tokio::test]
async fn closing_a_stream_cancels_only_its_own_prediction() {
    let server = Server::start(&[]).await;
    let body = |id: &str| json!({"id": id, "input": {"prompt": "step=20", "num_inference_steps": 20}}).to_string();
    let post = server.request("POST", "/predictions").header("content-type", "application/json");
    let mut stream = post.header("accept", "text/event-stream").body(body("mine")).send().await.unwrap();
    assert!(stream.chunk().await.unwrap().is_some());
    drop(stream);
    assert_eq!(server.ended("mine").await["status"], "canceled");

    server.predict_async(&serde_json::from_str(&body("other")).unwrap()).await;
    let mut stream = server.request("GET", "/predictions/other/stream").send().await.unwrap();
    assert!(stream.chunk().await.unwrap().is_some());
    drop(stream);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(server.ended("other").await["status"], "succeeded");
}

#[tokio::test]
async fn a_prediction_runs_until_its_last_subscriber_disconnects() {
    let server = Server::start(&[]).await;
    let text = json!({"input": {"prompt": "step=20", "num_inference_steps": 30}}).to_string();
    let open = |path: &'static str| {
        let put = server.request("PUT", path).header("content-type", "application/json");
        let put = put.header("accept", "text/event-stream").body(text.clone());
        async move {
            let mut stream = put.send().await.unwrap();
            assert_eq!(stream.headers()["content-type"], "text/event-stream");
            assert_eq!(stream.headers()["x-accel-buffering"], "no");
            assert!(stream.chunk().await.unwrap().is_some());
            stream
        }
    };
    // Both follow the same prediction; the one that created it may disconnect.
    let maker = open("/predictions/shared").await;
    let mut other = open("/predictions/shared").await;
    drop(maker);
    let mut rest = String::new();
    while let Some(chunk) = other.chunk().await.unwrap() {
        rest.push_str(&String::from_utf8_lossy(&chunk));
    }
    assert_eq!(frames(&rest).last().unwrap().2["status"], "succeeded");

    let maker = open("/predictions/left").await;
    let other = server.request("GET", "/predictions/left/stream").send().await.unwrap();
    drop(maker);
    server.until("/predictions/left", |is| is["metrics"]["step"].as_u64() > Some(5)).await;
    drop(other);
    let left = server.ended("left").await;
    assert_eq!(left["status"], "canceled");
    assert!(left["metrics"]["step"].as_u64() < Some(30), "{left}");

    // An async prediction does not depend on its subscribers.
    let body = serde_json::from_str::<Value>(&text).unwrap();
    server.json("PUT", "/predictions/async", &[("prefer", "respond-async")], &body).await;
    drop(open("/predictions/async").await);
    assert_eq!(server.ended("async").await["status"], "succeeded");
}

#[tokio::test]
async fn the_history_of_a_stream_is_bounded() {
    let server = Server::launch(&[], &[("COG_STREAM_HISTORY_CAPACITY", "0")]);
    server.until_health(&["READY"]).await;
    let body = json!({"id": "s", "input": {"prompt": "step=20", "num_inference_steps": 10}});
    server.predict_async(&body).await;
    server.until("/predictions/s", |is| is["metrics"]["step"].as_u64() > Some(1)).await;
    let late = frames(&server.get("/predictions/s/stream").await.text);
    assert_eq!((late.len(), late[0].1.as_str()), (1, "error"));
    assert_eq!(late[0].2["error"], "SSE stream replay truncated; events were dropped");
    assert!(late[0].2["skipped"].as_u64() >= Some(4), "{late:?}");
    let body = json!({"input": {"prompt": "a"}});
    let whole = server.json("POST", "/predictions", &[("accept", "text/event-stream")], &body).await;
    assert_eq!(frames(&whole.text).last().unwrap().1, "completed");
}

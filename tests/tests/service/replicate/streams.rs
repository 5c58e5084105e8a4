//! Streams, pictures and webhooks: what clients fetch without a token, and what they are sent.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::{Receiver, Server};

use super::{assert_prediction, assert_problem, body, create, path};

#[tokio::test]
async fn a_stream_has_the_four_events_of_its_clients() {
    let server = Server::start(&["--api-token", "secret"]).await;
    let token = ("authorization", "Token secret");
    let end = |text: &str| text.trim_end().rsplit("\n\n").next().unwrap().to_owned();
    let dir = tempfile::tempdir().unwrap();
    let gate = dir.path().join("open");
    for live in [true, false] {
        for (prompt, last) in [
            (format!("until={}", gate.display()), "data: {}"),
            (format!("fail until={}", gate.display()), "data: {\"reason\":\"error\"}"),
        ] {
            if live {
                _ = std::fs::remove_file(&gate);
            }
            let prefer = ("prefer", if live { "return=minimal" } else { "wait" });
            let begun = create(&server, &[token, prefer], &body(&prompt)).await.json;
            let stream = server.request("GET", &path(&server, &begun["urls"]["stream"])).send().await.unwrap();
            std::fs::write(&gate, "").unwrap();
            assert_eq!(stream.headers()["content-type"], "text/event-stream");
            let text = stream.text().await.unwrap();
            let events = text.split("\n\n").filter(|event| !event.is_empty() && !event.starts_with(':'));
            let names: Vec<&str> = events
                .map(|event| {
                    assert!(event.contains("\nid: ") && event.contains("\ndata: "), "{event}");
                    event.strip_prefix("event: ").unwrap().split('\n').next().unwrap()
                })
                .collect();
            assert!(names.iter().all(|name| ["output", "logs", "error", "done"].contains(name)), "{names:?}");
            assert!(names.contains(&"logs") || prompt.starts_with("fail"), "{names:?}");
            assert!(end(&text).contains(last) && end(&text).starts_with("event: done"), "{text}");
            let wanted = if prompt.starts_with("fail") { "error" } else { "output" };
            assert_eq!(names[names.len() - 2], wanted, "{names:?}");
        }
    }
    let waiting = create(&server, &[token], &body("until=/nowhere")).await.json;
    let stream = server.request("GET", &path(&server, &waiting["urls"]["stream"])).send().await.unwrap();
    server.json("POST", &path(&server, &waiting["urls"]["cancel"]), &[token], &json!(null)).await;
    assert!(end(&stream.text().await.unwrap()).contains("data: {\"reason\":\"canceled\"}"));
    for forged in ["/v1/files/stream/x", "/v1/files/output/x.png", "/v1/files/stream/00.YQ"] {
        assert_problem(&server.get(forged).await, 404);
    }
}

/// The events of a stream after an id: names, ids and data.
async fn after(server: &Server, path: &str, id: &str) -> Vec<[String; 3]> {
    let stream = server.request("GET", path).header("last-event-id", id).send().await.unwrap();
    assert_eq!(stream.status(), 200);
    assert_eq!(stream.headers()["x-accel-buffering"], "no");
    events(&stream.text().await.unwrap())
}

fn events(text: &str) -> Vec<[String; 3]> {
    let field = |event: &str, name: &str| {
        let lines = event.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        lines.collect::<Vec<_>>().join("\n")
    };
    let events = text.split("\n\n").filter(|event| event.starts_with("event: "));
    events.map(|event| ["event", "id", "data"].map(|name| field(event, name))).collect()
}

#[tokio::test]
async fn a_stream_goes_on_after_the_last_event() {
    let server = Server::start(&[]).await;
    let dir = tempfile::tempdir().unwrap();
    for (number, fails) in [false, true].into_iter().enumerate() {
        let gate = dir.path().join(number.to_string());
        let prompt = format!("{}until={}", if fails { "fail " } else { "" }, gate.display());
        let body = json!({"input": {"prompt": prompt, "num_inference_steps": 4}});
        let begun = create(&server, &[("prefer", "return=minimal")], &body).await.json;
        let path = path(&server, &begun["urls"]["stream"]);
        let mut stream = server.request("GET", &path).send().await.unwrap();
        let mut text = String::new();
        let first = async {
            while events(&text).is_empty() || !text.ends_with("\n\n") {
                text.push_str(&String::from_utf8_lossy(&stream.chunk().await.unwrap().expect("the stream goes on")));
            }
        };
        tokio::time::timeout(Duration::from_secs(30), first).await.expect("a first event");
        // It reconnects while the prediction runs, and the first stream goes on as well.
        let [_, seen, _] = events(&text).last().unwrap().clone();
        let again = server.request("GET", &path).header("last-event-id", &seen).send().await.unwrap();
        std::fs::write(&gate, "").unwrap();
        text.push_str(&stream.text().await.unwrap());
        let all = events(&text);
        let at = all.iter().position(|[_, id, _]| *id == seen).unwrap();
        assert_eq!(events(&again.text().await.unwrap()), all[at + 1..], "{text}");

        // From now on it is read from the store.
        let end = Instant::now() + Duration::from_secs(30);
        let stored = loop {
            let events = after(&server, &path, "").await;
            if events[0][1].starts_with("stored") {
                break events;
            }
            assert!(Instant::now() < end, "it is not read from the store: {events:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let names: Vec<&str> = stored.iter().map(|[name, ..]| name.as_str()).collect();
        assert_eq!(names, ["logs", if fails { "error" } else { "output" }, "done"], "{stored:?}");
        for (at, [name, id, _]) in stored.iter().enumerate() {
            if name != "done" {
                assert_eq!(after(&server, &path, id).await, stored[at + 1..], "{id}");
            }
        }
        let most = u64::MAX;
        assert!(after(&server, &path, &format!("stored:{most}")).await.is_empty());
        assert_eq!(after(&server, &path, &format!("{most}:{most}")).await, stored[1..]);
        // Of what it had while the prediction ran only the logs are known to be among it.
        assert_eq!(after(&server, &path, &seen).await, stored[1..]);
        for ended in [&all, &stored] {
            let [name, id, _] = ended.last().unwrap();
            let end = server.request("GET", &path).header("last-event-id", id).send().await.unwrap();
            assert_eq!((name.as_str(), end.status().as_u16()), ("done", 204), "a browser does not reconnect after it");
        }
    }
}

#[tokio::test]
async fn names_of_streams_and_pictures_outlive_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let https = ["--public-url", "https://panorama.example"];
    let mut server = Server::launch_in(dir.path(), &https, &[]);
    server.until_health(&["READY"]).await;
    let made = create(&server, &[("prefer", "wait")], &body("a")).await.json;
    let picture = made["output"].as_str().unwrap().strip_prefix("https://panorama.example").unwrap().to_owned();
    assert_eq!(server.get(&picture).await.status, 200);
    server.kill();
    let server = Server::launch_in(dir.path(), &https, &[]);
    server.until_health(&["READY"]).await;
    assert_eq!(server.get(&picture).await.status, 200);
    assert_eq!(
        server.get(&format!("/v1/predictions/{}", made["id"].as_str().unwrap())).await.json["urls"],
        made["urls"]
    );
}

#[tokio::test]
async fn names_do_not_open_what_has_their_id_later() {
    let server = Server::start(&[]).await;
    let again = json!({"id": "a/b", "input": {"prompt": "a", "num_inference_steps": 2}});
    let mut names = Vec::new();
    for _ in 0..2 {
        assert_eq!(server.predict(&again).await.json["status"], "succeeded");
        let listed = server.get("/v1/predictions").await.json["results"][0].clone();
        names.push([path(&server, &listed["urls"]["stream"]), path(&server, &listed["output"])]);
        for name in &names[names.len() - 1] {
            assert_eq!(server.get(name).await.status, 200, "{name}");
        }
    }
    assert_ne!(names[0], names[1]);
    for name in &names[0] {
        assert_problem(&server.get(name).await, 404);
    }
}

#[tokio::test]
async fn webhooks_have_the_form_of_the_api() {
    let server = Server::start(&[]).await;
    let receiver = Receiver::start(&[]).await;
    let mut body = body("a");
    body["webhook"] = json!(format!("{}/hook", receiver.url));
    body["webhook_events_filter"] = json!(["output", "completed"]);
    let created = create(&server, &[], &body).await.json;
    let sent = receiver.wait(|sent| sent.len() >= 2).await;
    for hook in &sent {
        assert_prediction(&hook.json);
        assert_eq!((&hook.json["urls"], &hook.json["model"]), (&created["urls"], &created["model"]));
        let output = hook.json["output"].as_str().unwrap().strip_prefix(&server.url).unwrap();
        assert_eq!(server.get(output).await.status, 200);
    }
    body["webhook"] = json!("file:///etc/passwd");
    assert_problem(&create(&server, &[], &body).await, 422);
}

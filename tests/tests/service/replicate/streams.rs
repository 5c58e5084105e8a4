//! Streams, pictures and webhooks: what clients fetch without a token, and what they are sent.

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

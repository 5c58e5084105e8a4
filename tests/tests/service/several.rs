//! Several pictures of one prediction.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tests::{Receiver, Server};

fn body(id: &str, prompt: &str, count: u32) -> Value {
    let input = json!({"prompt": prompt, "num_inference_steps": 2, "width": 512, "seed": 7, "num_outputs": count});
    json!({"id": id, "input": input})
}

fn bytes(output: &Value) -> Vec<u8> {
    STANDARD.decode(output.as_str().unwrap().strip_prefix("data:image/png;base64,").unwrap()).unwrap()
}

#[tokio::test]
async fn a_list_has_the_pictures_of_the_seeds() {
    for data in ["none", ""] {
        let dir = tempfile::tempdir().unwrap();
        let data = if data.is_empty() { dir.path().to_str().unwrap() } else { data };
        let server = Server::start(&["--data-dir", data]).await;
        let several = server.predict(&body("several", "a lake", 3)).await.json;
        let pictures = several["output"].as_array().unwrap_or_else(|| panic!("{several}")).clone();
        assert_eq!((pictures.len(), &several["input"]["num_outputs"]), (3, &json!(3)));
        for (n, picture) in pictures.iter().enumerate() {
            let mut alone = body("alone", "a lake", 1);
            alone["input"]["seed"] = json!(7 + n);
            let alone = server.predict(&alone).await.json;
            assert!(alone["output"] == *picture, "the picture of seed {} is another", 7 + n);
            assert_eq!(alone["input"].get("num_outputs"), None);
            let file = server.request("GET", &format!("/predictions/several/output?n={n}")).send().await.unwrap();
            assert_eq!(file.bytes().await.unwrap(), bytes(picture));
            let copy = server.get(&format!("/predictions/several/output?n={n}&width=64")).await;
            assert_eq!((copy.status, copy.headers["content-type"].to_str().unwrap()), (200, "image/jpeg"));
        }
        assert_eq!(server.get("/predictions/several/output?n=3").await.status, 404);
        assert!(server.get("/predictions/several").await.json == several);
        let listed = server.get("/predictions?status=succeeded").await.json["results"].as_array().unwrap().clone();
        let url = format!("{}/predictions/several/output", server.url);
        let listed = listed.iter().find(|one| one["id"] == "several").unwrap();
        assert_eq!(listed["output"], json!([url, format!("{url}?n=1"), format!("{url}?n=2")]));
        let work = &several["metrics"];
        assert_eq!((&work["steps"], &work["progress"]), (&json!(2), &json!(1.0)));
        let put = server.json("PUT", "/predictions/several", &[], &body("several", "a lake", 3)).await;
        assert!(put.json == several);
    }
}

#[tokio::test]
async fn files_uploads_webhooks_and_streams_have_all_of_them() {
    let server = Server::start(&["--output", "files"]).await;
    let receiver = Receiver::start(&[]).await;
    let mut with_hook = body("files", "a", 3);
    with_hook["input"]["output_format"] = json!("webp");
    with_hook["webhook"] = json!(format!("{}/hook", receiver.url));
    with_hook["webhook_events_filter"] = json!(["output", "completed"]);
    let prediction = server.predict(&with_hook).await.json;
    let output = prediction["output"].as_array().unwrap().clone();
    for url in &output {
        let path = url.as_str().unwrap().strip_prefix(&server.url).unwrap();
        assert!(path.strip_suffix(".webp").is_some(), "{path}");
        assert_eq!(server.get(path).await.headers["content-type"], "image/webp");
    }
    let sent = receiver.wait(|sent| sent.len() == 2).await;
    assert_eq!((&sent[0].json["status"], &sent[0].json["output"]), (&json!("processing"), &prediction["output"]));
    assert_eq!((&sent[1].json["status"], &sent[1].json["output"]), (&json!("succeeded"), &prediction["output"]));
    let stream = server.json("POST", "/predictions", &[("accept", "text/event-stream")], &body("stream", "a", 2)).await;
    let chunks: Vec<Value> = stream
        .text
        .split("\n\n")
        .filter(|event| event.contains("event: output"))
        .map(|event| serde_json::from_str(event.split("data: ").nth(1).unwrap().lines().next().unwrap()).unwrap())
        .collect();
    assert_eq!((&chunks[0]["index"], &chunks[1]["index"], chunks.len()), (&json!(0), &json!(1), 2));
    assert_ne!(chunks[0]["chunk"], chunks[1]["chunk"]);
    let form = Receiver::start(&[]).await;
    let mut prefixed = body("form", "a", 2);
    prefixed["output_file_prefix"] = json!(format!("{}/up-", form.url));
    let output = server.predict(&prefixed).await.json["output"].clone();
    assert_eq!(output, json!([format!("{}/up-output-0.png", form.url), format!("{}/up-output-1.png", form.url)]));
    assert_eq!(form.sent().len(), 2);
    // A second one that cannot be sent: none is shown, and both are kept.
    let refusing = Receiver::start(&[200, 403]).await;
    prefixed["id"] = json!("refused");
    prefixed["output_file_prefix"] = json!(format!("{}/", refusing.url));
    let refused = server.predict(&prefixed).await.json;
    assert_eq!((&refused["status"], &refused["output"]), (&json!("failed"), &Value::Null));
    assert_eq!(server.get("/predictions/refused/output?n=1").await.status, 200);
}

#[tokio::test]
async fn what_does_not_end_well_shows_none() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&[]).await;
    let gate = dir.path().join("go");
    server.predict_async(&body("canceled", &format!("early until={}", gate.display()), 3)).await;
    server.until("/predictions/canceled", |is| is["metrics"]["step"] == 1).await;
    assert_eq!(server.json("POST", "/predictions/canceled/cancel", &[], &Value::Null).await.status, 200);
    for (id, prompt, error) in [
        ("failed", "early fail", "the stand-in was told to fail"),
        ("short", "early short", "after 2 of 3 pictures"),
        ("tiny", "tiny", "a picture of 8 x 8 pixels"),
    ] {
        let ended = server.predict(&body(id, prompt, 3)).await.json;
        assert_eq!(ended["status"], "failed");
        assert!(ended["error"].as_str().unwrap().contains(error), "{ended}");
    }
    for id in ["canceled", "failed", "short", "tiny"] {
        let ended = server.ended(id).await;
        assert_eq!(ended["output"], Value::Null, "{ended}");
        assert_eq!(server.get(&format!("/predictions/{id}/output")).await.status, 404, "{id}");
    }
    // A worker that is lost after the first picture: the next attempt draws all.
    let once = dir.path().join("once");
    let lost = server.predict(&body("lost", &format!("early crash-once={}", once.display()), 2)).await.json;
    assert_eq!((&lost["status"], lost["output"].as_array().unwrap().len()), (&json!("succeeded"), 2));
}

/// Figures of each picture come with its metrics, and are stored.
#[tokio::test]
async fn figures_are_in_metrics_where_they_are_asked_for() {
    let server = Server::start(&[]).await;
    for count in [1, 3] {
        let mut body = body(&format!("of-{count}"), "a lake", count);
        let without = server.predict(&json!({"input": body["input"]})).await.json;
        assert_eq!((&without["status"], without["metrics"].get("figures")), (&json!("succeeded"), None));
        body["input"]["evaluate"] = json!(true);
        let with = server.predict(&body).await.json;
        assert_eq!((&with["input"]["evaluate"], &with["output"]), (&json!(true), &without["output"]));
        let figures = with["metrics"]["figures"].as_array().unwrap();
        assert_eq!(figures.len(), count as usize, "{with}");
        for (n, figures) in figures.iter().enumerate() {
            let wanted = json!({"seam": 1.5, "borders": null, "row_borders": null, "intra_lpips": n as f64 / 8.0});
            assert_eq!(*figures, wanted);
        }
        assert!(server.get(&format!("/predictions/of-{count}")).await.json == with);
    }
}

/// What the scheduler file of the model rules out is a 422 at the request, by all doors.
#[tokio::test]
async fn a_scheduler_that_the_model_rules_out_is_refused() {
    let server = Server::launch(&[], &[("STAND_IN_WITHOUT_UNIPC", "1")]);
    server.until_health(&["READY"]).await;
    for changes in [json!({"scheduler": "unipc"}), json!({"preset": "fast", "width": 1024})] {
        let mut refused = body("a", "a", 1);
        refused["input"].as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let answer = server.predict(&refused).await;
        assert_eq!(answer.status, 422, "{}", answer.text);
        let detail = &answer.json["detail"][0];
        assert_eq!((&detail["loc"][2], &detail["type"]), (&json!("scheduler"), &json!("value_error")));
        assert!(detail["msg"].as_str().unwrap().contains("must be `ddim`"), "{detail}");
        refused["input"]["scheduler"] = json!("dpmpp_2m");
        assert_eq!(server.predict(&refused).await.json["status"], "succeeded");
    }
    assert_eq!(server.predict(&body("b", "a", 1)).await.json["status"], "succeeded");
}

#[tokio::test]
async fn what_cannot_be_is_refused_by_name() {
    let server = Server::start(&[]).await;
    for (count, seed, field, message) in [
        (json!(0), json!(1), "num_outputs", "0 is less than the minimum of 1"),
        (json!(11), json!(1), "num_outputs", "11 is greater than the maximum of 10"),
        (json!(3), json!(u64::MAX - 1), "seed", "use 18446744073709551613 at most"),
    ] {
        let mut body = body("a", "a", 1);
        body["input"]["num_outputs"] = count;
        body["input"]["seed"] = seed;
        let answer = server.predict(&body).await;
        assert_eq!(answer.status, 422, "{}", answer.text);
        let detail = &answer.json["detail"][0];
        assert_eq!(detail["loc"][2], field);
        assert!(detail["msg"].as_str().unwrap().contains(message), "{detail}");
    }
    let mut last = body("a", "a", 2);
    last["input"]["seed"] = json!(u64::MAX - 1);
    assert_eq!(server.predict(&last).await.json["status"], "succeeded");
}

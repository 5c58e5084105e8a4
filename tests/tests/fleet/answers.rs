//! Any server answers for any prediction.

use serde_json::json;
use tests::Database;

use super::{fleet, until};

#[tokio::test]
async fn what_one_accepts_another_computes_and_all_show() {
    let Some(database) = Database::start() else { return };
    let (door, workers) = fleet(&database, 2).await;
    let made = door.predict(&json!({"id": "a", "input": {"prompt": "a", "width": 512}})).await;
    assert_eq!((made.status, &made.json["status"]), (200, &json!("succeeded")), "{}", made.text);
    assert!(made.json["output"].as_str().unwrap().starts_with("data:image/png;base64,"));
    for server in workers.iter().chain([&door]) {
        let shown = server.get("/predictions/a").await.json;
        assert_eq!(shown["output"], made.json["output"]);
        assert_eq!(shown["logs"], made.json["logs"]);
        assert_eq!(server.get("/predictions").await.json["results"][0]["id"], "a");
        assert_eq!(server.get("/predictions/a/output").await.status, 200);
    }
    // The same id is the same prediction everywhere.
    let again = workers[1].json("PUT", "/predictions/a", &[], &json!({"input": {"prompt": "b"}})).await;
    assert_eq!((again.status, &again.json["input"]["prompt"]), (200, &json!("a")));
    assert_eq!(workers[0].json("DELETE", "/predictions/a", &[], &json!(null)).await.status, 204);
    for server in workers.iter().chain([&door]) {
        assert_eq!(server.get("/predictions/a").await.status, 404);
    }
}

#[tokio::test]
async fn an_answer_is_of_now_also_for_what_ended_elsewhere() {
    let Some(database) = Database::start() else { return };
    let (door, workers) = fleet(&database, 1).await;
    let other = &workers[0];
    for round in 0..10 {
        let body = |seed: u64| json!({"id": "a", "input": {"prompt": "a", "width": 512, "seed": seed}});
        let (first, second) = (2 * round, 2 * round + 1);
        assert_eq!(door.predict_async(&body(first)).await.status, 202);
        other.ended("a").await;
        assert_eq!(door.get("/predictions/a").await.json["status"], "succeeded", "all say the same");
        assert_eq!(other.json("DELETE", "/predictions/a", &[], &json!(null)).await.status, 204);
        // The server that accepted it has not looked since.
        let made = match round % 3 {
            0 => door.json("PUT", "/predictions/a", &[("prefer", "respond-async")], &body(second)).await,
            1 => door.predict_async(&body(second)).await,
            _ => {
                assert_eq!(door.get("/predictions/a").await.status, 404);
                door.json("PUT", "/predictions/a", &[("prefer", "respond-async")], &body(second)).await
            }
        };
        assert_eq!((made.status, &made.json["input"]["seed"]), (202, &json!(second)), "{}", made.text);
        let ended = other.ended("a").await;
        assert_eq!((&ended["status"], &ended["input"]["seed"]), (&json!("succeeded"), &json!(second)));
        assert_eq!(door.json("DELETE", "/predictions/a", &[], &json!(null)).await.status, 204);
        assert_eq!(door.get("/predictions/a").await.status, 404);
    }
}

#[tokio::test]
async fn any_server_cancels_and_streams() {
    let Some(database) = Database::start() else { return };
    let (door, workers) = fleet(&database, 1).await;
    let files = tempfile::tempdir().unwrap();
    let go = files.path().join("go");
    let runs = json!({"id": "runs", "input": {"prompt": format!("until={}", go.display()), "width": 512}});
    assert_eq!(door.predict_async(&runs).await.status, 202);
    door.until("/predictions/runs", |is| is["status"] == "processing" && is["metrics"]["step"].as_u64() >= Some(1))
        .await;
    let waits = json!({"id": "waits", "input": {"prompt": "b", "width": 512}});
    assert_eq!(workers[0].predict_async(&waits).await.status, 202);
    assert_eq!(door.get("/predictions/waits").await.json["status"], "starting");
    assert_eq!(door.json("DELETE", "/predictions/runs", &[], &json!(null)).await.status, 409, "it has not ended");
    // What waits is canceled by whoever is asked, and its server hears of it.
    assert_eq!(door.json("POST", "/predictions/waits/cancel", &[], &json!(null)).await.status, 200);
    assert_eq!(workers[0].ended("waits").await["status"], "canceled");
    // What runs is followed to its end by a server that neither accepted nor computes it.
    let third = super::door(&database.url());
    third.until_health(&["READY", "BUSY"]).await;
    let stream = tokio::spawn(third.request("GET", "/predictions/runs/stream").send());
    third.until("/predictions/runs", |is| is["status"] == "processing").await;
    std::fs::write(&go, "").unwrap();
    let stream = stream.await.unwrap().unwrap().text().await.unwrap();
    assert!(stream.contains("event: completed") && stream.contains("event: output"), "{stream}");
    std::fs::remove_file(&go).unwrap();
    let runs = json!({"id": "stops", "input": {"prompt": format!("until={}", go.display()), "width": 512}});
    assert_eq!(door.predict_async(&runs).await.status, 202);
    third.until("/predictions/stops", |is| is["status"] == "processing").await;
    assert_eq!(third.json("POST", "/predictions/stops/cancel", &[], &json!(null)).await.status, 200);
    assert_eq!(door.ended("stops").await["status"], "canceled");
    workers[0].until_health(&["READY"]).await;
}

#[tokio::test]
async fn previews_are_shown_by_a_server_that_does_not_draw() {
    let Some(database) = Database::start() else { return };
    let (door, _workers) = fleet(&database, 1).await;
    let files = tempfile::tempdir().unwrap();
    let go = files.path().join("go");
    assert_eq!(door.predict_async(&until("a", &go)).await.status, 202);
    let mut stream = door.request("GET", "/predictions/a/stream?preview=true").send().await.unwrap();
    let mut seen = String::new();
    while !seen.contains("event: preview") {
        let chunk = stream.chunk().await.unwrap();
        seen.push_str(&String::from_utf8_lossy(&chunk.expect("a preview comes before the end")));
    }
    assert!(!seen.contains("event: completed"), "{seen}");
}

#[tokio::test]
async fn any_server_shows_and_stops_what_a_client_of_automatic1111_asked_another_for() {
    let Some(database) = Database::start() else { return };
    let (door, _workers) = fleet(&database, 1).await;
    let other = super::door(&database.url());
    other.until_health(&["READY"]).await;
    let progress = "/sdapi/v1/progress";
    assert_eq!(other.get(progress).await.json["state"]["job_count"], 0);
    let body = json!({"prompt": "until=/nowhere/at/all", "steps": 4, "batch_size": 2});
    let (answer, ()) = tokio::join!(door.json("POST", "/sdapi/v1/txt2img", &[], &body), async {
        let seen = other.until(progress, |is| is["current_image"].is_string()).await;
        assert_eq!((&seen["state"]["job"], &seen["state"]["job_count"]), (&json!("txt2img"), &json!(2)), "{seen}");
        assert!(seen["state"]["sampling_step"].as_u64() >= Some(1), "{seen}");
        let bare = other.get(&format!("{progress}?skip_current_image=true")).await.json;
        assert!(bare["current_image"].is_null() && bare["progress"].as_f64() > Some(0.0), "{bare}");
        assert_eq!(other.json("POST", "/sdapi/v1/interrupt", &[], &json!({})).await.status, 200);
    });
    assert_eq!(answer.status, 500);
    assert!(answer.json["detail"].as_str().unwrap().contains("cancel"), "{}", answer.text);
    other.until(progress, |is| is["state"]["job_count"] == 0).await;
}

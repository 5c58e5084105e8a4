//! What all servers of a database have in common besides predictions.

use futures_util::future::join_all;
use serde_json::{Value, json};
use tests::{Database, Receiver};

use super::{fleet, quick};

/// Where Replicate's clients ask for a prediction of the model.
const MODEL: &str = "/v1/models/syncdiffusion/panorama/predictions";

#[tokio::test]
async fn small_copies_usage_and_lists_are_those_of_all() {
    let Some(database) = Database::start() else { return };
    let (door, workers) = fleet(&database, 2).await;
    for n in 0..4 {
        let made = door.predict(&quick(&format!("p{n}"))).await;
        assert_eq!(made.json["status"], "succeeded", "{}", made.text);
    }
    let path = "/predictions/p0/output?width=256";
    let copies = join_all([&door, &workers[0], &workers[1]].map(|server| server.get(path))).await;
    assert!(copies.iter().all(|copy| copy.status == 200 && copy.text == copies[0].text));
    for server in workers.iter().chain([&door]) {
        let listed = server.get("/predictions").await.json;
        let ids: Vec<_> = listed["results"].as_array().unwrap().iter().map(|one| one["id"].clone()).collect();
        assert_eq!(ids, ["p3", "p2", "p1", "p0"]);
        let usage = server.get("/usage").await.json;
        assert_eq!(usage["usage"][0]["succeeded"], 4, "{usage}");
        let newest = server.get("/v1/predictions").await.json;
        assert_eq!(newest["results"][0]["id"], "p3", "{newest}");
    }
}

#[tokio::test]
async fn files_keys_and_names_are_those_of_all() {
    let Some(database) = Database::start() else { return };
    let (door, workers) = fleet(&database, 1).await;
    // A file that was uploaded to one is an input of another.
    let made = door.predict(&quick("a")).await.json;
    let picture = door.request("GET", "/predictions/a/output").send().await.unwrap().bytes().await.unwrap();
    let mut body = b"--xx\r\ncontent-disposition: form-data; name=\"content\"; filename=\"a.png\"\r\n\r\n".to_vec();
    body.extend_from_slice(&picture);
    body.extend_from_slice(b"\r\n--xx--\r\n");
    let upload =
        door.request("POST", "/v1/files").header("content-type", "multipart/form-data; boundary=xx").body(body);
    let file = door.send(upload).await;
    assert_eq!(file.status, 201, "{}", file.text);
    let listed = workers[0].get("/v1/files").await.json;
    assert_eq!(listed["results"][0]["id"], file.json["id"]);
    let asked = json!({"input": {"prompt": "b", "width": 1024, "image": file.json["urls"]["get"]}});
    let request = workers[0].json("POST", MODEL, &[("prefer", "wait=30")], &asked).await;
    assert_eq!((request.status, &request.json["status"]), (201, &json!("succeeded")), "{}", request.text);
    assert!(request.json["logs"].as_str().unwrap().contains("image"), "{}", request.text);
    let path = format!("/v1/files/{}", file.json["id"].as_str().unwrap());
    assert_eq!(workers[0].send(workers[0].request("DELETE", &path)).await.status, 204);
    assert_eq!(door.get(&path).await.status, 404);
    // The names in URLs open the same everywhere.
    let id = request.json["id"].as_str().unwrap();
    let shown = door.get(&format!("/v1/predictions/{id}")).await.json;
    let stream = shown["urls"]["stream"].as_str().unwrap();
    let name = stream.split_once("/v1/").unwrap().1;
    assert_eq!(door.get(&format!("/v1/{name}")).await.status, 200);
    // A key names the same prediction everywhere.
    let key = [("idempotency-key", "k1")];
    let first = door.json("POST", "/predictions", &key, &json!({"input": {"prompt": "k", "width": 512}})).await;
    let second = workers[0].json("POST", "/predictions", &key, &json!({"input": {"prompt": "k", "width": 512}})).await;
    assert_eq!((first.status, &first.json["id"]), (200, &second.json["id"]), "{} {}", first.text, second.text);
    assert_ne!(first.json["id"], made["id"]);
}

#[tokio::test]
async fn webhooks_arrive_wherever_a_prediction_runs() {
    let Some(database) = Database::start() else { return };
    let (door, workers) = fleet(&database, 2).await;
    let receiver = Receiver::start(&[]).await;
    let asked: Vec<Value> = (0..6)
        .map(|n| {
            let mut body = quick(&format!("w{n}"));
            body["webhook"] = json!(format!("{}/w", receiver.url));
            body["webhook_events_filter"] = json!(["completed"]);
            body
        })
        .collect();
    for (n, body) in asked.iter().enumerate() {
        let server = [&door, &workers[0], &workers[1]][n % 3];
        assert_eq!(server.predict_async(body).await.status, 202);
    }
    let sent = receiver.wait(|sent| sent.len() >= asked.len()).await;
    for sent in &sent {
        assert_eq!(sent.json["status"], "succeeded");
        assert!(sent.json["output"].as_str().unwrap().starts_with("data:image/png;base64,"));
    }
    let owed = "SELECT count(*) FROM syncdiffusion.predictions WHERE owed";
    while database.sql(owed) != "0\n" {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(receiver.sent().len(), asked.len(), "each is sent once, by the server that accepted it");
}

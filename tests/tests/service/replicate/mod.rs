//! Replicate's `/v1`: the corners that its clients rely on. The clients themselves run in `tests/clients`.

mod files;
mod models;
mod streams;

use serde_json::{Value, json};
use tests::{Answer, Server};

const MODEL: &str = "/v1/models/syncdiffusion/panorama";

fn body(prompt: &str) -> Value {
    json!({"input": {"prompt": prompt, "num_inference_steps": 2}})
}

/// POST by model.
async fn create(server: &Server, headers: &[(&str, &str)], body: &Value) -> Answer {
    server.json("POST", &format!("{MODEL}/predictions"), headers, body).await
}

/// What every prediction must have, or clients fail.
fn assert_prediction(is: &Value) {
    for name in ["id", "model", "version", "status", "created_at", "logs", "source"] {
        assert!(is[name].is_string(), "{name}: {is}");
    }
    assert!(["starting", "processing", "succeeded", "failed", "canceled"].contains(&is["status"].as_str().unwrap()));
    assert!(is["input"].is_object() && is["metrics"].is_object() && is["data_removed"] == false, "{is}");
    assert!(is["error"].is_null() || is["error"].is_string(), "{is}");
    for name in ["get", "cancel", "web", "stream"] {
        assert!(is["urls"][name].as_str().unwrap().starts_with("http"), "{is}");
    }
}

fn assert_problem(answer: &Answer, status: u16) {
    assert_eq!(
        (answer.status, &answer.headers["content-type"]),
        (status, &"application/problem+json".parse().unwrap()),
        "{}",
        answer.text
    );
    assert_eq!(answer.json["status"], status, "{}", answer.text);
    assert!(answer.json["detail"].is_string() && answer.json["title"].is_string(), "{}", answer.text);
}

/// The path of a URL of the server.
fn path(server: &Server, url: &Value) -> String {
    url.as_str().unwrap().strip_prefix(&server.url).unwrap_or_else(|| panic!("{url}")).to_owned()
}

/// The only version of the model.
async fn version(server: &Server) -> String {
    server.get(MODEL).await.json["latest_version"]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_prediction_is_created_by_version_and_by_model() {
    let server = Server::start(&[]).await;
    let version = version(&server).await;
    assert_eq!(version.len(), 64);
    let by_model = create(&server, &[("prefer", "wait")], &body("a")).await;
    assert_eq!((by_model.status, &by_model.json["status"]), (201, &json!("succeeded")));
    assert_eq!(by_model.headers["preference-applied"], "wait=60");
    assert_eq!(by_model.headers["location"], by_model.json["urls"]["get"].as_str().unwrap());
    assert!(by_model.json["output"].as_str().unwrap().starts_with("data:image/png;base64,"));
    assert_eq!(
        (&by_model.json["model"], &by_model.json["version"]),
        (&json!("syncdiffusion/panorama"), &json!(version))
    );
    assert_prediction(&by_model.json);
    let read = server.get(&path(&server, &by_model.json["urls"]["get"])).await;
    assert_eq!((read.status, &read.json["output"]), (200, &by_model.json["output"]));

    for spelling in [version.clone(), format!("syncdiffusion/panorama:{version}"), "SyncDiffusion/Panorama".to_owned()]
    {
        let mut body = body("a");
        body["version"] = json!(spelling);
        let answer = server.json("POST", "/v1/predictions", &[], &body).await;
        assert_eq!((answer.status, &answer.json["status"]), (201, &json!("starting")), "{spelling}: {}", answer.text);
        assert_prediction(&answer.json);
    }
    for wrong in ["x".to_owned(), version.replace('5', "6"), format!("other/model:{version}"), "other/model".to_owned()]
    {
        let mut body = body("a");
        body["version"] = json!(wrong);
        let answer = server.json("POST", "/v1/predictions", &[], &body).await;
        assert_problem(&answer, 422);
        assert_eq!(answer.json["title"], "Invalid version or not permitted", "{wrong}");
    }
    assert_problem(&server.json("POST", "/v1/predictions", &[], &body("a")).await, 422);
    assert_problem(&server.json("POST", "/v1/models/other/model/predictions", &[], &body("a")).await, 404);
}

#[tokio::test]
async fn a_request_is_held_as_long_as_it_says_and_then_told_to_look_again() {
    let server = Server::start(&[]).await;
    let dir = tempfile::tempdir().unwrap();
    let gate = dir.path().join("open");
    let begun = std::time::Instant::now();
    let prompt = format!("until={}", gate.display());
    let answer = create(&server, &[("prefer", "wait=1")], &body(&prompt)).await;
    assert!(begun.elapsed().as_millis() >= 900);
    assert_eq!((answer.status, &answer.json["status"]), (201, &json!("starting")));
    assert_eq!((&answer.json["output"], &answer.json["started_at"]), (&json!(null), &json!(null)));
    let get = path(&server, &answer.json["urls"]["get"]);
    assert_eq!(server.until(&get, |is| is["status"] != "starting").await["status"], "processing");
    std::fs::write(gate, "").unwrap();
    let ended = server.until(&get, |is| is["status"] != "processing").await;
    assert_eq!(ended["status"], "succeeded");
    assert!(ended["metrics"]["predict_time"].is_number() && ended["metrics"]["total_time"].is_number(), "{ended}");
    let failed = create(&server, &[("prefer", "wait")], &body("fail")).await;
    assert_eq!((failed.status, &failed.json["status"]), (201, &json!("failed")));
    assert!(failed.json["error"].as_str().unwrap().contains("told to fail"));
}

#[tokio::test]
async fn a_cancellation_needs_no_body_and_shows_the_end() {
    let server = Server::start(&[]).await;
    let running = create(&server, &[], &body("until=/nowhere")).await.json;
    let cancel = path(&server, &running["urls"]["cancel"]);
    for _ in 0..2 {
        let answer = server.send(server.request("POST", &cancel).header("content-type", "application/json")).await;
        assert_eq!((answer.status, &answer.json["status"]), (200, &json!("canceled")));
        assert_prediction(&answer.json);
    }
    assert_problem(&server.send(server.request("POST", "/v1/predictions/none/cancel")).await, 404);
}

#[tokio::test]
async fn errors_are_problems() {
    let server = Server::start(&["--api-token", "secret"]).await;
    let token = ("authorization", "Bearer secret");
    for answer in [server.get(MODEL).await, server.json("POST", "/v1/predictions", &[], &body("a")).await] {
        assert_problem(&answer, 401);
        assert_eq!(
            (&answer.json["title"], &answer.headers["www-authenticate"]),
            (&json!("Unauthenticated"), &"Bearer".parse().unwrap())
        );
    }
    // What clients of OpenAI read is there, too.
    let shared = server.get("/v1/models").await;
    assert_problem(&shared, 401);
    assert_eq!(shared.json["error"]["code"], "invalid_api_key");
    assert_eq!(shared.json["error"]["message"], shared.json["detail"]);
    let (headers, nothing) = ([token], json!({}));
    let send = |method: &'static str, path: &'static str| server.json(method, path, &headers, &nothing);
    for (method, path) in [
        ("GET", "/v1/predictions/none"),
        ("GET", "/v1/nothing"),
        ("GET", "/v1/models/a/b"),
        ("GET", "/v1/models/syncdiffusion/panorama/versions/5a"),
        ("POST", "/v1/models"),
        ("PATCH", MODEL),
        ("DELETE", MODEL),
        ("GET", "/v1/collections/x"),
        ("POST", "/v1/deployments"),
        ("GET", "/v1/trainings/x"),
        ("GET", "/v1/files/none"),
        ("DELETE", "/v1/files/none"),
    ] {
        assert_problem(&send(method, path).await, 404);
    }
    let wrong_method = send("PUT", "/v1/predictions").await;
    assert_problem(&wrong_method, 405);
    assert!(wrong_method.headers["allow"].to_str().unwrap().contains("POST"));
    let bad = server.request("POST", "/v1/predictions").header("authorization", "Bearer secret").body("{bad");
    assert_problem(&server.send(bad.header("content-type", "application/json")).await, 400);

    let input = json!({"input": {"width": 99_999, "seed": "x"}});
    let invalid = create(&server, &[token], &input).await;
    assert_problem(&invalid, 422);
    let fields: Vec<_> = invalid.json["invalid_fields"].as_array().unwrap().iter().map(|is| &is["field"]).collect();
    assert_eq!(fields, ["input.seed", "input.width", "input"]);
    assert!(invalid.json["detail"].as_str().unwrap().contains("- input: prompt is required\n"));
    let unknown = create(&server, &[token], &json!({"inputs": {}})).await;
    assert_eq!(unknown.json["invalid_fields"][0]["type"], "additional_property_not_allowed", "{}", unknown.text);
    // Cog's own errors stay as they are.
    let cog = server.json("POST", "/predictions", &[token], &input).await;
    assert!(cog.json["detail"].is_array() && cog.headers["content-type"] == "application/json", "{}", cog.text);
}

#[tokio::test]
async fn unknown_inputs_are_ignored_with_a_line_in_the_log() {
    let server = Server::start(&[]).await;
    let input = json!({"prompt": "a", "num_inference_steps": 1, "aspect_ratio": "16:9", "go_fast": true});
    let answer = create(&server, &[("prefer", "wait")], &json!({ "input": input })).await;
    assert_eq!((answer.status, &answer.json["status"]), (201, &json!("succeeded")));
    let log = server.logged("Stripped unknown input fields").await;
    assert!(log.contains("aspect_ratio") && log.contains("go_fast"), "{log}");
}

#[tokio::test]
async fn a_full_queue_and_a_server_that_loads_are_told_apart() {
    let server = Server::start(&["--queue-size", "0"]).await;
    let running = create(&server, &[], &body("until=/nowhere")).await.json;
    server.until(&path(&server, &running["urls"]["get"]), |is| is["status"] == "processing").await;
    let full = create(&server, &[], &body("a")).await;
    assert_problem(&full, 429);
    assert!(full.headers.contains_key("retry-after"));
    let loading = Server::launch(&[], &[("STAND_IN_LOAD_MS", "600000")]);
    let answer = create(&loading, &[], &body("a")).await;
    assert_problem(&answer, 503);
    assert!(answer.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn a_key_names_one_prediction() {
    let server = Server::start(&["--api-token", "one,two"]).await;
    let key = ("idempotency-key", "k-1");
    let one = ("authorization", "Bearer one");
    let dir = tempfile::tempdir().unwrap();
    let gate = dir.path().join("open");
    let slow = body(&format!("until={}", gate.display()));
    let first = create(&server, &[one, key], &slow).await;
    let again = create(&server, &[one, key], &slow).await;
    assert_eq!((first.status, again.status, &again.json["id"]), (201, 201, &first.json["id"]));
    let other = create(&server, &[("authorization", "Bearer two"), key], &slow).await;
    assert_ne!(other.json["id"], first.json["id"], "a key is its client's");
    assert_problem(&create(&server, &[one, key], &body("b")).await, 422);
    assert_problem(&create(&server, &[one, ("idempotency-key", "")], &slow).await, 422);
    std::fs::write(gate, "").unwrap();
    let waited = create(&server, &[one, key, ("prefer", "wait")], &slow).await;
    assert_eq!((&waited.json["id"], &waited.json["status"]), (&first.json["id"], &json!("succeeded")));
    assert_eq!(create(&server, &[one, key], &slow).await.json["output"], waited.json["output"]);
}

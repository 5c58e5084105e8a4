//! Cog's contract: statuses, keys and messages, as recorded from the real server.

use base64::Engine as _;
use serde_json::{Value, json};
use tests::Server;

/// The keys of every prediction object.
const KEYS: [&str; 13] = [
    "completed_at",
    "created_at",
    "error",
    "id",
    "input",
    "logs",
    "metrics",
    "model",
    "output",
    "started_at",
    "status",
    "urls",
    "version",
];

pub(crate) fn assert_whole(prediction: &Value) {
    let keys: Vec<&String> = prediction.as_object().expect("an object").keys().collect();
    assert_eq!(keys, KEYS, "{prediction}");
}

#[tokio::test]
async fn the_root_lists_the_routes() {
    let server = Server::start(&[]).await;
    let root = server.get("/").await;
    assert_eq!(
        root.text,
        r#"{"cog_version":"0.23.1","docs_url":"/docs","healthcheck_url":"/health-check","openapi_url":"/openapi.json","predictions_cancel_url":"/predictions/{prediction_id}/cancel","predictions_idempotent_url":"/predictions/{prediction_id}","predictions_url":"/predictions","shutdown_url":"/shutdown"}"#
    );
    let page = server.send(server.request("GET", "/").header("accept", "text/html,*/*;q=0.8")).await;
    assert!(page.headers["content-type"].to_str().unwrap().starts_with("text/html") && page.text.contains("<form"));
    assert_eq!(server.get("/playground").await.text, page.text);
    assert_eq!(server.get("/docs").await.status, 200);

    let health = server.get("/health-check").await;
    assert!(health.text.starts_with(r#"{"status":"READY","setup":{"started_at":""#), "{}", health.text);
    assert_eq!(health.json["setup"]["status"], "succeeded");
    assert_eq!(health.json["version"]["coglet"], "0.23.1");
    assert_eq!(server.get("/ready").await.status, 200);
    assert_eq!(server.get("/live").await.status, 200);

    let cog: Value = serde_json::from_str(include_str!("cog-openapi.json")).unwrap();
    let ours = server.get("/openapi.json").await.json;
    // The inputs of the hosted model are as Cog has them; ours come after them.
    let mut input = ours["components"]["schemas"]["Input"].clone();
    let fields = input["properties"].as_object_mut().unwrap();
    let mut more: Vec<Value> = Vec::new();
    fields.retain(|_, field| {
        let hosted = field["x-order"].as_u64().unwrap() < 13;
        if !hosted {
            more.push(field.clone());
        }
        hosted
    });
    assert_eq!(input, cog["components"]["schemas"]["Input"]);
    let mut orders: Vec<u64> = more.iter().map(|field| field["x-order"].as_u64().unwrap()).collect();
    orders.sort_unstable();
    assert_eq!(orders, (13..13 + more.len() as u64).collect::<Vec<_>>());
    assert!(more.iter().all(|field| field.get("default").is_some() || field["nullable"] == true), "{more:?}");
    for component in ["Output", "Status", "HTTPValidationError", "ValidationError"] {
        assert_eq!(ours["components"]["schemas"][component], cog["components"]["schemas"][component], "{component}");
    }
    for path in cog["paths"].as_object().unwrap().keys() {
        assert!(ours["paths"].get(path).is_some(), "{path}");
    }
}

#[tokio::test]
async fn routing() {
    let server = Server::start(&[]).await;
    for (method, path, status, allow) in [
        ("POST", "/health-check", 405, Some("GET,HEAD")),
        ("GET", "/shutdown", 405, Some("POST")),
        ("GET", "/predictions/abc/cancel", 405, Some("POST")),
        ("OPTIONS", "/predictions", 405, Some("POST,GET,HEAD")),
        ("GET", "/nope", 404, None),
        ("POST", "/predictions/", 404, None),
        ("POST", "/trainings", 404, None),
        ("PUT", "/trainings/x", 404, None),
    ] {
        let answer = server.send(server.request(method, path)).await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(answer.headers.get("allow").map(|allow| allow.to_str().unwrap()), allow, "{method} {path}");
        if status == 404 {
            let detail = answer.json["detail"].as_str().unwrap();
            let advice = if path == "/predictions/" { "try `/predictions`" } else { "`/openapi.json` lists the paths" };
            assert!(detail.contains(&format!("`{path}`")) && detail.contains(advice), "{detail}");
        } else {
            let detail = answer.json["detail"].as_str().unwrap();
            assert!(detail.contains(&format!("`{method}`")) && detail.contains(path), "{detail}");
        }
    }
    let head = server.send(server.request("HEAD", "/health-check")).await;
    assert_eq!((head.status, head.text.as_str()), (200, ""));
}

#[tokio::test]
async fn a_prediction_from_request_to_picture() {
    let server = Server::start(&[]).await;
    let body =
        json!({"id": "my-id-1", "input": {"prompt": "a", "num_inference_steps": 3, "seed": 7, "nope": 1}, "extra": 2});
    let answer = server.predict(&body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let prediction = &answer.json;
    assert_whole(prediction);
    assert_eq!((&prediction["id"], &prediction["status"]), (&json!("my-id-1"), &json!("succeeded")));
    assert_eq!(
        prediction["input"],
        json!({"prompt": "a", "negative_prompt": "", "width": 2048, "height": 512, "guidance_scale": 7.5, "sync_weight": 20.0,
            "sync_decay_rate": 0.99, "sync_freq": 1, "sync_threshold": 5, "num_inference_steps": 3, "stride": 16, "seed": 7,
            "loop_closure": false})
    );
    let logs: Vec<&str> = prediction["logs"].as_str().unwrap().lines().collect();
    assert_eq!(logs.len(), 3);
    assert!(logs[0].starts_with(" 33%|███▎      | 1/3 [00:00<00:00, "), "{logs:?}");
    assert!(logs[2].starts_with("100%|██████████| 3/3 ["), "{logs:?}");
    let metrics = &prediction["metrics"];
    for key in ["predict_time", "total_time", "queue_time"] {
        assert!(metrics[key].as_f64().unwrap() >= 0.0, "{metrics}");
    }
    assert_eq!((&metrics["progress"], &metrics["unet_forwards"]), (&json!(1.0), &json!(78)));
    assert_eq!((&prediction["model"], prediction["version"].as_str().unwrap().len()), (&json!("demo"), 64));
    assert_eq!(prediction["urls"]["get"], format!("{}/predictions/my-id-1", server.url));

    let output = prediction["output"].as_str().unwrap().strip_prefix("data:image/png;base64,").unwrap();
    let png = base64::engine::general_purpose::STANDARD.decode(output).unwrap();
    let mut reader = png::Decoder::new(std::io::Cursor::new(&png)).read_info().unwrap();
    assert_eq!((reader.info().width, reader.info().height), (2048, 512));
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    assert_eq!(pixels[2], 7, "the stand-in writes the seed into the blue");

    let again = server.get("/predictions/my-id-1").await;
    assert_eq!((again.status, &again.json), (200, prediction));
    let file = server.get("/predictions/my-id-1/output").await;
    assert_eq!((file.status, file.headers["content-type"].to_str().unwrap()), (200, "image/png"));
    assert_eq!(server.get("/predictions/other").await.json, json!({"detail": "there is no prediction `other`"}));
    server.logged("Stripped unknown input fields").await;
}

#[tokio::test]
async fn refusals() {
    let server = Server::start(&[]).await;
    let missing = json!({"detail": [{"loc": ["body", "input", "prompt"], "msg": "Field required", "type": "value_error.missing"}]});
    for body in [json!({}), json!({"input": {}}), json!({"input": null})] {
        let answer = server.predict(&body).await;
        assert_eq!((answer.status, &answer.json), (422, &missing), "{body}");
    }
    assert_eq!(server.send(server.request("POST", "/predictions")).await.json, missing);
    let answer = server.predict(&json!({"input": {"width": 1000, "stride": 24, "sync_freq": 0}})).await;
    let details = answer.json["detail"].as_array().unwrap();
    let fields: Vec<&str> = details.iter().map(|detail| detail["loc"][2].as_str().unwrap()).collect();
    assert_eq!((answer.status, fields), (422, vec!["stride", "sync_freq", "width", "prompt"]));
    let webhook = server.predict(&json!({"input": {"prompt": "a"}, "webhook": "not a url"})).await;
    assert_eq!((webhook.status, &webhook.json["detail"][0]["loc"]), (422, &json!(["body", "webhook"])));

    let post = |kind: &'static str, body: &'static str| {
        server.request("POST", "/predictions").header("content-type", kind).body(body)
    };
    for (kind, body, status, words) in [
        (
            "application/json",
            "{bad",
            400,
            "Failed to parse the request body as JSON: key must be a string at line 1 column 2",
        ),
        ("text/plain", "{}", 415, "Expected request with `Content-Type: application/json`"),
    ] {
        let answer = server.send(post(kind, body)).await;
        assert_eq!((answer.status, answer.json), (status, json!({"detail": words})), "{body}");
    }
    let without_type =
        server.request("POST", "/predictions").body(r#"{"input":{"prompt":"a","num_inference_steps":1}}"#);
    assert_eq!(server.send(without_type).await.json["status"], "succeeded");
    let large = server
        .send(server.request("POST", "/predictions").header("content-type", "application/json").body(vec![
            b' ';
            (100 << 20)
                + 1
        ]))
        .await;
    assert_eq!(
        (large.status, large.json),
        (413, json!({"detail": "Failed to buffer the request body: length limit exceeded"}))
    );
}

#[tokio::test]
async fn predictions_before_and_after_a_failed_setup() {
    let waiting = "Setup has not finished yet. Wait until it has finished, or GET /health-check for status.";
    let server = Server::launch(&[], &[("STAND_IN_LOAD_MS", "600")]);
    let health = server.get("/health-check").await.json;
    assert_eq!((&health["status"], &health["setup"]["status"]), (&json!("STARTING"), &json!("starting")));
    assert!(health["setup"].get("completed_at").is_none());
    let answer = server.predict(&json!({"input": {}})).await;
    assert_eq!((answer.status, answer.json), (503, json!({"error": waiting, "status": "failed"})));
    assert_eq!(server.get("/ready").await.status, 503);
    assert_eq!(server.get("/live").await.status, 200);
    assert_eq!(server.get("/").await.status, 200);
    assert_eq!(server.send(server.request("POST", "/predictions/x/cancel")).await.status, 404);
    server.until_health(&["READY"]).await;

    for (environment, words) in [
        (("STAND_IN_LOAD_ERROR", "there is no model `x`"), "there is no model `x`"),
        (("STAND_IN_LOAD_CRASH", "1"), "the worker ended while it loaded: exit status: 9"),
    ] {
        let server = Server::launch(&[], &[environment]);
        let health = server.until_health(&["SETUP_FAILED"]).await;
        assert_eq!(health["setup"]["status"], "failed");
        assert!(health["setup"]["logs"].as_str().unwrap().contains(words), "{health}");
        let answer = server.predict(&json!({"input": {"prompt": "a"}})).await;
        assert_eq!((answer.status, &answer.json["error"]), (503, &json!(waiting)));
    }
}

#[tokio::test]
async fn the_geometry_of_the_model_decides() {
    let server = Server::launch(&[], &[("STAND_IN_WINDOW", "96")]);
    server.until_health(&["READY"]).await;
    // What is left out is what the model can draw, and the schema says so.
    let answer = server.predict(&json!({"input": {"prompt": "a", "num_inference_steps": 1}})).await;
    assert_eq!(answer.json["status"], "succeeded", "{}", answer.text);
    assert_eq!((&answer.json["input"]["width"], &answer.json["input"]["height"]), (&json!(2048), &json!(768)));
    let schema = server.get("/openapi.json").await.json;
    let height = &schema["components"]["schemas"]["Input"]["properties"]["height"];
    assert_eq!((&height["default"], &height["minimum"]), (&json!(768), &json!(768)));
    let answer = server.predict(&json!({"input": {"prompt": "a", "height": 512}})).await;
    assert_eq!(answer.json["detail"][0]["msg"], "512 is less than the window of 768 pixels; the minimum is 768");
    let answer = server
        .predict(
            &json!({"input": {"prompt": "a", "height": 768, "stride": 48, "width": 1920, "num_inference_steps": 1}}),
        )
        .await;
    assert_eq!(answer.json["status"], "succeeded", "{}", answer.text);
}

/// They show where one of them is used, and nowhere else.
#[tokio::test]
async fn inputs_beyond_the_hosted_model() {
    let server = Server::start(&[]).await;
    let answer = server.predict(&json!({"input": {"prompt": "a", "num_inference_steps": 1}})).await;
    assert_eq!(answer.json["input"].as_object().unwrap().len(), 13, "{}", answer.text);
    let ring = json!({"input": {"prompt": "a", "num_inference_steps": 1, "seamless": true}});
    let input = server.predict(&ring).await.json["input"].clone();
    assert_eq!(
        (&input["seamless"], &input["blend"], &input["sync_mode"]),
        (&json!(true), &json!("smooth"), &json!("windows"))
    );
    // What a response shows makes the same prediction again.
    assert_eq!(server.predict(&json!({"input": input})).await.json["input"], input);
    let both = server.predict(&json!({"input": {"prompt": "a", "seamless": true, "loop_closure": true}})).await;
    assert_eq!((both.status, &both.json["detail"][0]["loc"]), (422, &json!(["body", "input", "seamless"])));
}

#[tokio::test]
async fn a_failed_prediction_is_a_response() {
    let server = Server::start(&[]).await;
    let answer = server.predict(&json!({"input": {"prompt": "fail", "num_inference_steps": 4}})).await;
    assert_eq!((answer.status, &answer.json["status"]), (200, &json!("failed")));
    assert_whole(&answer.json);
    assert_eq!(answer.json["error"], "the stand-in was told to fail");
    assert!(answer.json["logs"].as_str().unwrap().contains("1/4"), "the logs are kept");
    assert!(answer.json["id"].as_str().unwrap().starts_with("pred_"));
}

#[tokio::test]
async fn http_2_works_with_prior_knowledge() {
    let server = Server::start(&[]).await;
    let connection = tokio::net::TcpStream::connect(server.url.strip_prefix("http://").unwrap()).await.unwrap();
    let (client, connection) = h2::client::handshake(connection).await.unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let post = |prompt: &str| {
        let request = axum::http::Request::post("http://localhost:8080/predictions");
        let body = json!({"id": prompt, "input": {"prompt": prompt, "num_inference_steps": 50, "width": 512}});
        (request.header("content-type", "application/json").body(()).unwrap(), body.to_string().into())
    };
    let (request, body) = post("whole");
    let (answer, mut to) = client.send_request(request, false).unwrap();
    to.send_data(body, true).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, axum::http::Version::HTTP_2));
    let (mut body, mut text) = (answer.into_body(), Vec::new());
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        text.extend_from_slice(&data);
    }
    let whole: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(whole["status"], "succeeded");
    assert_eq!(whole["urls"]["get"], "http://localhost:8080/predictions/whole");

    // One request of a connection can be cancelled.
    let (request, body) = post("step=50");
    let (_answer, mut to) = client.send_request(request, false).unwrap();
    to.send_data(body, true).unwrap();
    server.until("/predictions/step=50", |is| is["status"] == "processing").await;
    to.send_reset(h2::Reason::CANCEL);
    assert_eq!(server.ended("step=50").await["status"], "canceled");
}

//! OpenAI's images, as its clients see them. tests/clients runs those clients themselves.

use std::io::Cursor;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tests::{Answer, Server};

const PATH: &str = "/v1/images/generations";

async fn generate(server: &Server, body: &Value) -> Answer {
    server.json("POST", PATH, &[], body).await
}

fn decoded(text: &Value) -> Vec<u8> {
    STANDARD.decode(text.as_str().unwrap_or_else(|| panic!("{text}"))).unwrap()
}

/// Size, first pixel and texts of a PNG.
fn png(bytes: &[u8]) -> ((u32, u32), [u8; 3], Vec<String>) {
    let mut reader = png::Decoder::new(Cursor::new(bytes)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    let info = reader.info();
    let latin = info.uncompressed_latin1_text.iter().map(|chunk| chunk.keyword.clone());
    let texts = latin.chain(info.utf8_text.iter().map(|chunk| chunk.keyword.clone())).collect();
    (info.size(), [pixels[0], pixels[1], pixels[2]], texts)
}

/// The error of an answer, all four keys of which must be there.
fn error(answer: &Answer) -> &Value {
    let error = &answer.json["error"];
    let keys: Vec<&String> = error.as_object().unwrap_or_else(|| panic!("{}", answer.text)).keys().collect();
    assert_eq!(keys, ["code", "message", "param", "type"], "{}", answer.text);
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{error}");
    error
}

#[tokio::test]
async fn a_picture_is_answered_as_base64() {
    let server = Server::start(&[]).await;
    let answer = generate(&server, &json!({"prompt": "a lake", "num_inference_steps": 2})).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let json = &answer.json;
    let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["background", "created", "data", "output_format", "quality", "size", "usage"]);
    assert_eq!((&json["background"], &json["output_format"]), (&json!("opaque"), &json!("png")));
    assert_eq!((&json["quality"], &json["size"]), (&json!("high"), &json!("2048x512")));
    assert!(json["created"].as_u64().is_some_and(|created| created > 1_700_000_000), "{json}");
    assert_eq!(
        json["usage"],
        json!({"input_tokens": 6, "input_tokens_details": {"image_tokens": 0, "text_tokens": 6}, "output_tokens": 1024,
            "total_tokens": 1030})
    );
    let data = &json["data"][0];
    let keys: Vec<&String> = data.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["b64_json", "prediction_id", "seed"], "never a url beside it");
    let picture = decoded(&data["b64_json"]);
    assert_eq!(png(&picture).0, (2048, 512));
    // It is a prediction like any other.
    let prediction = server.get(&format!("/predictions/{}", data["prediction_id"].as_str().unwrap())).await.json;
    assert_eq!((&prediction["status"], &prediction["input"]["seed"]), (&json!("succeeded"), &data["seed"]));
    assert!(prediction["output"].as_str().unwrap().ends_with(data["b64_json"].as_str().unwrap()));
    let other = generate(&server, &json!({"prompt": "a lake", "num_inference_steps": 2, "user": "u-1"})).await.json;
    assert_ne!(other["data"][0]["seed"], data["seed"], "seeds are random where none is given");
    assert_eq!(other["safety_identifier"], "u-1");
    server.logged("u-1").await;
}

#[tokio::test]
async fn pictures_have_exactly_the_size_that_is_asked_for() {
    let server = Server::start(&[]).await;
    for (size, drawn) in [("1000x600", (1024, 640)), ("512x512", (512, 512)), ("1792x1024", (1792, 1024))] {
        let answer =
            generate(&server, &json!({"prompt": "a", "size": size, "num_inference_steps": 1, "seed": 5})).await;
        assert_eq!((answer.status, &answer.json["size"]), (200, &json!(size)), "{}", answer.text);
        let data = &answer.json["data"][0];
        let ((width, height), first, texts) = png(&decoded(&data["b64_json"]));
        assert_eq!(format!("{width}x{height}"), size);
        assert_eq!(texts.len(), 3, "how it was made is still there: {texts:?}");
        // The stand-in draws the column and the row of a pixel: the middle was kept.
        let inset = |drawn: u32, kept: u32| ((drawn - kept) / 2 * 255 / drawn) as u8;
        assert_eq!(first, [inset(drawn.0, width), inset(drawn.1, height), 5]);
        let id = data["prediction_id"].as_str().unwrap();
        let input = server.get(&format!("/predictions/{id}")).await.json["input"].clone();
        assert_eq!((input["width"].as_u64(), input["height"].as_u64()), (Some(drawn.0.into()), Some(drawn.1.into())));
    }
}

#[tokio::test]
async fn pictures_have_the_format_that_is_asked_for() {
    let server = Server::start(&[]).await;
    for (format, start) in [("jpeg", &b"\xff\xd8\xff"[..]), ("webp", b"RIFF"), ("png", b"\x89PNG")] {
        let body = json!({"prompt": "a", "output_format": format, "size": "512x512", "num_inference_steps": 1});
        let answer = generate(&server, &body).await;
        assert_eq!(answer.json["output_format"], format, "{}", answer.text);
        assert!(decoded(&answer.json["data"][0]["b64_json"]).starts_with(start), "{format}");
    }
}

#[tokio::test]
async fn several_pictures_have_seeds_in_a_row() {
    let server = Server::start(&[]).await;
    let body = json!({"prompt": "a", "n": 3, "seed": 40, "size": "512x512", "num_inference_steps": 1});
    let answer = generate(&server, &body).await.json;
    let data = answer["data"].as_array().unwrap();
    let seeds: Vec<&Value> = data.iter().map(|picture| &picture["seed"]).collect();
    assert_eq!(seeds, [40, 41, 42]);
    // The stand-in draws the seed in blue.
    let blues: Vec<u8> = data.iter().map(|picture| png(&decoded(&picture["b64_json"])).1[2]).collect();
    assert_eq!(blues, [40, 41, 42]);
    assert_eq!(answer["usage"]["output_tokens"], 3 * 256);
}

#[tokio::test]
async fn urls_are_of_the_host_that_was_called_and_open() {
    let server = Server::start(&["--api-token", "right"]).await;
    let body = json!({"prompt": "a", "model": "dall-e-2", "n": 2, "size": "600x520", "num_inference_steps": 1});
    let port = server.url.rsplit_once(':').unwrap().1.to_owned();
    let host = format!("localhost:{port}");
    let answer = server.json("POST", PATH, &[("authorization", "Bearer right"), ("host", &host)], &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    for picture in answer.json["data"].as_array().unwrap() {
        assert!(picture.get("b64_json").is_none(), "{picture}");
        let path = picture["url"].as_str().unwrap().strip_prefix(&format!("http://{host}")).unwrap();
        let bytes = server.request("GET", path).send().await.unwrap().bytes().await.unwrap();
        assert_eq!(png(&bytes).0, (600, 520), "without a token");
    }
    for (model, form, key) in
        [("dall-e-3", "b64_json", "b64_json"), ("gpt-image-1", "url", "url"), ("syncdiffusion", "", "b64_json")]
    {
        let body = json!({"prompt": "a", "model": model, "response_format": form, "size": "512x512",
            "num_inference_steps": 1});
        let answer = server.json("POST", PATH, &[("authorization", "Bearer right")], &body).await.json;
        assert!(answer["data"][0][key].is_string(), "{model} {form}: {answer}");
    }
}

#[tokio::test]
async fn every_error_has_its_status_and_four_keys() {
    let server = Server::start(&["--api-token", "right", "--max-body", "1KiB"]).await;
    let send = |body: String| {
        let post = server.request("POST", PATH).header("authorization", "Bearer right");
        server.send(post.header("content-type", "application/json").body(body))
    };
    for (body, param, code) in [
        ("{bad".to_owned(), Value::Null, "invalid_json"),
        ("[]".to_owned(), Value::Null, "invalid_json"),
        (json!({"n": 1}).to_string(), json!("prompt"), "missing_required_parameter"),
        (json!({"prompt": null}).to_string(), json!("prompt"), "missing_required_parameter"),
        (json!({"prompt": "a", "size": "256x256"}).to_string(), json!("size"), "invalid_value"),
        (json!({"prompt": "a", "n": 11}).to_string(), json!("n"), "invalid_value"),
        (json!({"prompt": "a", "background": "transparent"}).to_string(), json!("background"), "invalid_value"),
        (json!({"prompt": "a", "output_format": "gif"}).to_string(), json!("output_format"), "invalid_value"),
        (
            json!({"prompt": "a", "partial_images": 4, "stream": true}).to_string(),
            json!("partial_images"),
            "invalid_value",
        ),
        (json!({"prompt": "a", "guidance_scale": 99}).to_string(), json!("guidance_scale"), "invalid_value"),
        (json!({"prompt": "a", "webhook": "ftp://a"}).to_string(), json!("webhook"), "invalid_value"),
    ] {
        let answer = send(body.clone()).await;
        let error = error(&answer);
        assert_eq!((answer.status, &error["type"]), (400, &json!("invalid_request_error")), "{body}: {error}");
        assert_eq!((&error["param"], &error["code"]), (&param, &json!(code)), "{body}");
        assert!(answer.headers.contains_key("x-request-id"));
    }
    let small = send(json!({"prompt": "a", "size": "256x256"}).to_string()).await;
    assert!(small.text.contains("`512x512`"), "the nearest that works: {}", small.text);
    for (method, path, token, status, code) in [
        ("POST", PATH, None, 401, "invalid_api_key"),
        ("POST", PATH, Some("wrong"), 401, "invalid_api_key"),
        ("GET", "/v1/models/panorama", None, 401, "invalid_api_key"),
        ("GET", "/v1/models/gpt-4o", Some("right"), 404, "model_not_found"),
        ("POST", "/v1/images/variations", Some("right"), 404, "unknown_url"),
        ("GET", PATH, Some("right"), 405, "method_not_supported"),
    ] {
        let mut request = server.request(method, path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let answer = server.send(request).await;
        let error = error(&answer);
        assert_eq!((answer.status, &error["code"]), (status, &json!(code)), "{method} {path} {token:?}");
    }
    let model = send(json!({"prompt": "a", "model": "sdxl"}).to_string()).await;
    assert_eq!((model.status, &error(&model)["code"]), (404, &json!("model_not_found")));
    let huge = send(format!("{{\"prompt\":\"{}\"}}", "x".repeat(1024))).await;
    assert_eq!((huge.status, &error(&huge)["code"]), (413, &json!("body_too_large")));
}

#[tokio::test]
async fn a_failed_job_is_not_tried_again() {
    let server = Server::start(&[]).await;
    let answer = generate(&server, &json!({"prompt": "fail", "num_inference_steps": 2})).await;
    assert_eq!((answer.status, answer.headers["x-should-retry"].as_bytes()), (500, &b"false"[..]));
    let failed = error(&answer);
    assert_eq!((&failed["type"], &failed["code"]), (&json!("server_error"), &json!("failed")));
    assert!(failed["message"].as_str().unwrap().contains("the stand-in was told to fail"), "{failed}");
    let two = generate(&server, &json!({"prompt": "fail", "n": 2, "num_inference_steps": 2})).await;
    assert_eq!(two.status, 500);
}

#[tokio::test]
async fn what_may_work_later_says_when() {
    let server = Server::start(&["--queue-size", "1"]).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("go").display().to_string();
    for id in ["runs", "waits"] {
        server
            .predict_async(&json!({"id": id, "input": {"prompt": format!("until={file}"), "num_inference_steps": 2}}))
            .await;
        server.until(&format!("/predictions/{id}"), |is| is["status"] == "processing" || id == "waits").await;
    }
    let full = generate(&server, &json!({"prompt": "a"})).await;
    assert_eq!((full.status, &error(&full)["code"]), (429, &json!("rate_limit_exceeded")));
    assert_eq!(error(&full)["type"], "rate_limit_error");
    assert!(full.headers["retry-after"].to_str().unwrap().parse::<u64>().is_ok_and(|after| after > 0));
    std::fs::write(&file, "").unwrap();

    let loading = Server::launch(&[], &[("STAND_IN_LOAD_MS", "60000")]);
    let answer = generate(&loading, &json!({"prompt": "a"})).await;
    assert_eq!((answer.status, &error(&answer)["type"]), (503, &json!("server_error")));
    assert!(answer.headers.contains_key("retry-after"));
}

/// The events of a stream.
fn events(text: &str) -> Vec<Value> {
    let data = text.split("\n\n").filter_map(|frame| frame.lines().find_map(|line| line.strip_prefix("data: ")));
    data.map(|data| serde_json::from_str(data).unwrap()).collect()
}

#[tokio::test]
async fn a_stream_has_partial_images_and_every_picture() {
    let server = Server::start(&[]).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("go").display().to_string();
    let body = json!({"prompt": format!("until={file}"), "stream": true, "partial_images": 1, "n": 2, "seed": 3,
        "size": "600x512", "num_inference_steps": 2});
    let post = server.request("POST", PATH).header("content-type", "application/json").body(body.to_string());
    let mut stream = post.send().await.unwrap();
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    assert_eq!(stream.headers()["x-accel-buffering"], "no");
    let mut text = String::new();
    while !text.contains("partial_image_index") || !text.ends_with("\n\n") {
        text.push_str(&String::from_utf8_lossy(&stream.chunk().await.unwrap().expect("the stream goes on")));
    }
    std::fs::write(&file, "").unwrap();
    while let Some(chunk) = stream.chunk().await.unwrap() {
        text.push_str(&String::from_utf8_lossy(&chunk));
    }
    let events = events(&text);
    let partial = &events[0];
    assert_eq!(partial["type"], "image_generation.partial_image", "{text}");
    assert_eq!((&partial["partial_image_index"], &partial["size"]), (&json!(0), &json!("600x512")));
    assert!(decoded(&partial["b64_json"]).starts_with(b"\x89PNG"));
    assert!(text.contains("event: image_generation.partial_image\n"));
    let done: Vec<&Value> = events.iter().filter(|event| event["type"] == "image_generation.completed").collect();
    let seeds: Vec<&Value> = done.iter().map(|event| &event["seed"]).collect();
    assert_eq!(seeds, [3, 4], "{text}");
    for event in &events {
        for key in ["background", "created_at", "output_format", "quality", "size"] {
            assert!(!event[key].is_null(), "{key} is missing");
        }
    }
    assert_eq!(png(&decoded(&done[1]["b64_json"])).0, (600, 512));
    assert_eq!(done[0]["usage"]["output_tokens"], 300);

    let whole = generate(&server, &json!({"prompt": "a", "stream": true, "num_inference_steps": 1})).await;
    let kinds: Vec<String> = self::events(&whole.text).iter().map(|event| event["type"].to_string()).collect();
    assert_eq!(kinds, ["\"image_generation.completed\""], "no partial images unless they are asked for");
    let failed = generate(&server, &json!({"prompt": "fail", "stream": true, "num_inference_steps": 2})).await;
    assert!(failed.text.contains("event: error\n"), "{}", failed.text);
    assert_eq!(self::events(&failed.text)[0]["error"]["code"], "failed");
}

#[tokio::test]
async fn a_stream_that_is_left_stops_its_work() {
    let server = Server::start(&[]).await;
    let body =
        json!({"prompt": "until=/nowhere/at/all", "stream": true, "partial_images": 3, "num_inference_steps": 4});
    let post = server.request("POST", PATH).header("content-type", "application/json").body(body.to_string());
    let mut stream = post.send().await.unwrap();
    assert!(stream.chunk().await.unwrap().is_some());
    drop(stream);
    server.until("/predictions", |list| list["results"][0]["status"] == "canceled").await;
}

/// Sends a request that the client does not wait for: the connection is closed when the prediction runs.
async fn leave(server: &Server, body: &Value) -> String {
    let post = server.request("POST", PATH).header("content-type", "application/json").body(body.to_string());
    let sending = tokio::spawn(post.header("x-stainless-retry-count", "0").send());
    let list = server.until("/predictions", |list| list["results"][0]["status"] == "processing").await;
    sending.abort();
    list["results"][0]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_retry_joins_its_first_job() {
    let server = Server::start(&[]).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("go").display().to_string();
    let body = json!({"prompt": format!("until={file}"), "size": "512x512", "num_inference_steps": 2});
    let first = leave(&server, &body).await;
    let again = |count: &'static str| {
        let body = body.to_string();
        let post = server.request("POST", PATH).header("content-type", "application/json").body(body);
        server.send(post.header("x-stainless-retry-count", count))
    };
    let (retry, ()) = tokio::join!(again("1"), async {
        server.logged("a request that was repeated waits for its first job").await;
        std::fs::write(&file, "").unwrap();
    });
    assert_eq!((retry.status, &retry.json["data"][0]["prediction_id"]), (200, &json!(first)), "{}", retry.text);
    // Also one whose answer was lost.
    let late = again("2").await.json;
    assert_eq!(late["data"], retry.json["data"]);
    // A new request is new, and so is one that says something else.
    let new = again("0").await.json;
    assert_ne!(new["data"][0]["prediction_id"], json!(first));
    let mut other = body.clone();
    other["quality"] = json!("high");
    let other = server.json("POST", PATH, &[("x-stainless-retry-count", "1")], &other).await.json;
    assert_ne!(other["data"][0]["prediction_id"], json!(first));
    assert_eq!(server.get("/predictions").await.json["results"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn what_nobody_comes_back_for_is_stopped() {
    let server = Server::start(&[]).await;
    let id = leave(&server, &json!({"prompt": "until=/nowhere/at/all", "num_inference_steps": 2})).await;
    let ended = server.ended(&id).await;
    assert_eq!(ended["status"], "canceled");
}

#[tokio::test]
async fn the_model_is_known_under_several_names() {
    let server = Server::start(&["--api-token", "right"]).await;
    let get = |path: &str| server.send(server.request("GET", path).header("authorization", "Bearer right"));
    for name in ["panorama", "syncdiffusion", "gpt-image-1", "dall-e-3", "dall-e-2"] {
        let card = get(&format!("/v1/models/{name}")).await.json;
        assert_eq!((&card["id"], &card["object"]), (&json!(name), &json!("model")));
        assert!(card["created"].is_u64() && card["owned_by"].is_string(), "{card}");
    }
    let capable = get("/v1/models/capabilities").await.json;
    assert_eq!(capable["object"], "list");
    let names: Vec<&Value> = capable["data"].as_array().unwrap().iter().map(|model| &model["id"]).collect();
    assert_eq!(names, ["panorama", "gpt-image-1", "dall-e-3"]);
    let listed = get("/v1/models").await.json;
    let cards: Vec<&Value> = listed["data"].as_array().unwrap().iter().map(|card| &card["id"]).collect();
    assert_eq!(cards, names);
    assert!(capable["data"].as_array().unwrap().iter().all(|model| model["capabilities"] == json!(["image"])));
    // SillyTavern asks for this without a token.
    let options = server.send(server.request("OPTIONS", PATH)).await;
    assert_eq!((options.status, options.headers["allow"].to_str().unwrap()), (204, "OPTIONS, POST"));
}

#[tokio::test]
async fn a_crop_outlives_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let go = data.path().join("go");
    let mut server = Server::launch_in(data.path(), &["--grace", "1s"], &[]);
    server.until_health(&["READY"]).await;
    let body = json!({"prompt": format!("until={}", go.display()), "size": "700x520", "num_inference_steps": 2});
    let post = server.request("POST", PATH).header("content-type", "application/json").body(body.to_string());
    let sending = tokio::spawn(post.send());
    let list = server.until("/predictions", |list| list["results"][0]["status"] == "processing").await;
    server.kill();
    let _ = sending.await;
    std::fs::write(&go, "").unwrap();
    let server = Server::launch_in(data.path(), &[], &[]);
    let id = list["results"][0]["id"].as_str().unwrap();
    server.until_health(&["READY"]).await;
    assert_eq!(server.ended(id).await["status"], "succeeded");
    let picture = server.request("GET", &format!("/predictions/{id}/output")).send().await.unwrap();
    assert_eq!(png(&picture.bytes().await.unwrap()).0, (700, 520));
    assert!(Path::new(&go).exists());
}

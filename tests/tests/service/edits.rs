//! Pictures that are drawn on by OpenAI's route for edits. tests/clients runs its clients themselves.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tests::{Answer, Server};

const PATH: &str = "/v1/images/edits";
/// Four quarters of 48x32 pixels in all.
const QUARTERS: &[u8] = include_bytes!("../../pictures/quarters.png");

/// A text or a file of a form.
#[derive(Clone, Copy)]
enum Part<'a> {
    Text(&'a str, &'a str),
    File(&'a str, &'a [u8]),
}
use Part::{File, Text};

/// What most requests here have.
const USUAL: [Part<'_>; 3] = [Text("prompt", "a lake"), Text("num_inference_steps", "4"), File("image", QUARTERS)];

fn form(server: &Server, boundary: &str, parts: &[Part<'_>]) -> RequestBuilder {
    let mut body = Vec::new();
    for part in parts {
        let (head, bytes) = match part {
            Text(name, text) => (format!("name=\"{name}\""), text.as_bytes()),
            File(name, bytes) => {
                (format!("name=\"{name}\"; filename=\"a.png\"\r\nContent-Type: application/octet-stream"), *bytes)
            }
        };
        body.extend(format!("--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n").into_bytes());
        body.extend(bytes);
        body.extend(b"\r\n");
    }
    body.extend(format!("--{boundary}--\r\n").into_bytes());
    let kind = format!("multipart/form-data; boundary={boundary}");
    server.request("POST", PATH).header("content-type", kind).body(body)
}

async fn edit(server: &Server, more: &[Part<'_>]) -> Answer {
    server.send(form(server, "limit", &[&USUAL[..], more].concat())).await
}

/// The prediction of the first picture of an answer.
async fn prediction(server: &Server, answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text);
    let id = answer.json["data"][0]["prediction_id"].as_str().unwrap();
    server.get(&format!("/predictions/{id}")).await.json
}

/// Width and height of a PNG in base64.
fn size(text: &Value) -> (u32, u32) {
    let png = STANDARD.decode(text.as_str().unwrap_or_else(|| panic!("{text}"))).unwrap();
    png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap().info().size()
}

#[tokio::test]
async fn a_picture_becomes_part_of_a_panorama() {
    let server = Server::start(&[]).await;
    let answer = edit(&server, &[Text("seed", "7"), Text("user", ""), Text("n", "2")]).await;
    let made = prediction(&server, &answer).await;
    assert_eq!((&answer.json["size"], size(&answer.json["data"][0]["b64_json"])), (&json!("2048x512"), (2048, 512)));
    assert_eq!((&answer.json["data"][0]["seed"], &answer.json["data"][1]["seed"]), (&json!(7), &json!(8)));
    // It comes to the worker as it was sent, and is kept.
    assert!(made["logs"].as_str().unwrap().contains("given image 48x32 130,125,130"), "{made}");
    assert!(made["input"]["strength"].is_null() && made["input"]["prompt"] == "a lake", "{made}");
    let path = made["input"]["image"].as_str().unwrap().strip_prefix(&server.url).unwrap().to_owned();
    assert_eq!(server.request("GET", &path).send().await.unwrap().bytes().await.unwrap(), QUARTERS);
    assert!(!server.log().contains("Stripped"), "{}", server.log());
}

#[tokio::test]
async fn a_picture_lies_in_what_is_kept() {
    let server = Server::start(&[]).await;
    for (asked, more, given, left, strength) in [
        // Drawn at 1024x640: the picture is as high as what is kept, and its edges are continued.
        ("1000x600", &[][..], "900x640", Value::Null, Value::Null),
        ("1000x600", &[Text("image_left", "40")], "900x640", json!(52), Value::Null),
        // It leaves nothing to draw, so it is drawn again.
        ("768x512", &[], "48x32", Value::Null, json!(0.75)),
        ("900x600", &[], "1024x640", Value::Null, json!(0.75)),
        ("900x600", &[Text("strength", "0.5")], "1024x640", Value::Null, json!(0.5)),
    ] {
        let answer = edit(&server, &[&[Text("size", asked)], more].concat()).await;
        let made = prediction(&server, &answer).await;
        let (width, height) = size(&answer.json["data"][0]["b64_json"]);
        assert_eq!(format!("{width}x{height}"), asked);
        assert!(made["logs"].as_str().unwrap().contains(&format!("given image {given} ")), "{asked}: {made}");
        assert_eq!((&made["input"]["image_left"], &made["input"]["strength"]), (&left, &strength), "{asked}");
    }
    let wide = edit(&server, &[Text("size", "600x520")]).await;
    assert_eq!((wide.status, &wide.json["error"]["param"]), (400, &json!("image")));
    assert!(wide.text.contains("choose a width in `size` of at least 780"), "{}", wide.text);
    let wide = edit(&server, &[Text("width", "640"), Text("height", "640")]).await;
    assert!(wide.text.contains("choose a `width` of at least 960"), "{}", wide.text);
    let beyond = edit(&server, &[Text("size", "1000x600"), Text("image_left", "120")]).await;
    assert_eq!((beyond.status, &beyond.json["error"]["param"]), (400, &json!("image_left")), "{}", beyond.text);
}

#[tokio::test]
async fn pictures_come_in_json_too() {
    let server = Server::start(&[]).await;
    let uri = format!("data:image/png;base64,{}", STANDARD.encode(QUARTERS));
    for image in [json!({"image": uri}), json!({"images": [{"image_url": uri}]}), json!({"image": [uri]})] {
        let mut body = image;
        (body["prompt"], body["num_inference_steps"]) = ("a".into(), 2.into());
        let answer = server.json("POST", PATH, &[], &body).await;
        let made = prediction(&server, &answer).await;
        assert!(made["logs"].as_str().unwrap().contains("given image 48x32"), "{made}");
    }
    for (field, image) in
        [("image", json!("data:image/png;base64,aGk=")), ("images", json!(["data:image/png;base64,aGk="]))]
    {
        let answer = server.json("POST", PATH, &[], &json!({"prompt": "a", field: image})).await;
        assert_eq!((answer.status, &answer.json["error"]["param"]), (400, &json!(field)), "{}", answer.text);
    }
    // For new pictures it is an input like any other, which lies in what is kept as well.
    let body = json!({"prompt": "a", "image": uri, "size": "1000x600", "num_inference_steps": 2});
    let answer = server.json("POST", "/v1/images/generations", &[], &body).await;
    let made = prediction(&server, &answer).await;
    assert!(made["logs"].as_str().unwrap().contains("given image 900x640"), "{made}");
}

#[tokio::test]
async fn events_have_the_names_of_edits() {
    let server = Server::start(&[]).await;
    let stream = edit(&server, &[Text("stream", "true"), Text("partial_images", "2")]).await;
    assert_eq!((stream.status, stream.headers["content-type"].as_bytes()), (200, &b"text/event-stream"[..]));
    let names: Vec<&str> = stream.text.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    let (last, partial) = names.split_last().unwrap();
    assert_eq!(*last, "image_edit.completed");
    assert!(partial.iter().all(|name| *name == "image_edit.partial_image"), "{names:?}");
    assert!(stream.text.contains("\"type\":\"image_edit.completed\""), "{}", stream.text);
}

/// A picture that is drawn again has fewer steps than were asked for, which its previews count.
#[tokio::test]
async fn partial_images_are_spread_over_the_steps_that_are_drawn() {
    let server = Server::start(&[]).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("go").display().to_string();
    let prompt = format!("of=2 until={file}");
    let parts = [
        Text("prompt", &prompt),
        Text("num_inference_steps", "50"),
        Text("strength", "0.04"),
        Text("stream", "true"),
        Text("partial_images", "1"),
        Text("size", "768x512"),
        File("image", QUARTERS),
    ];
    let mut stream = form(&server, "limit", &parts).send().await.unwrap();
    assert_eq!(stream.headers()["x-accel-buffering"], "no");
    let mut text = String::new();
    let first = async {
        while !text.contains("partial_image_index") {
            text.push_str(&String::from_utf8_lossy(&stream.chunk().await.unwrap().expect("the stream goes on")));
        }
    };
    tokio::time::timeout(Duration::from_secs(30), first).await.expect("a partial image after the first of two steps");
    std::fs::write(&file, "").unwrap();
    while let Some(chunk) = stream.chunk().await.unwrap() {
        text.push_str(&String::from_utf8_lossy(&chunk));
    }
    assert!(text.contains("event: image_edit.completed"), "{text}");
}

#[tokio::test]
async fn a_form_is_repeated_between_other_limits() {
    let server = Server::start(&[]).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("go").display().to_string();
    let prompt = format!("until={file}");
    let parts = [Text("prompt", &prompt), Text("num_inference_steps", "2"), File("image", QUARTERS)];
    let sending = tokio::spawn(form(&server, "first", &parts).header("x-stainless-retry-count", "0").send());
    let list = server.until("/predictions", |list| list["results"][0]["status"] == "processing").await;
    sending.abort();
    let again = form(&server, "second", &parts).header("x-stainless-retry-count", "1");
    let (answer, ()) = tokio::join!(server.send(again), async {
        server.logged("a request that was repeated waits for its first job").await;
        std::fs::write(&file, "").unwrap();
    });
    assert_eq!(prediction(&server, &answer).await["id"], list["results"][0]["id"]);
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_in_words() {
    let server = Server::start(&["--max-body", "64KiB"]).await;
    let large = vec![b'x'; 65 << 10];
    let prompt = Text("prompt", "a");
    for (parts, status, param, words) in [
        (vec![prompt], 400, json!("image"), "is missing"),
        (vec![File("image", QUARTERS)], 400, json!("prompt"), "is missing"),
        (vec![prompt, File("image[]", QUARTERS), File("image[]", QUARTERS)], 400, json!("image"), "send one"),
        (vec![prompt, File("image", QUARTERS), File("mask", QUARTERS)], 400, json!("mask"), "leave `mask` out"),
        (vec![prompt, File("image", b"GIF89a")], 400, json!("image"), "a GIF; convert it"),
        (vec![prompt, File("image", &QUARTERS[..100])], 400, json!("image"), "PNG"),
        (vec![prompt, File("image", QUARTERS), Text("size", "256x256")], 400, json!("size"), "`512x512`"),
        (vec![prompt, File("image", QUARTERS), Text("model", "sdxl")], 404, json!("model"), "`sdxl`"),
        (vec![prompt, File("image", &large)], 413, Value::Null, "length limit"),
    ] {
        let answer = server.send(form(&server, "X", &parts)).await;
        let error = &answer.json["error"];
        assert_eq!((answer.status, &error["param"]), (status, &param), "{}", answer.text);
        assert!(error["message"].as_str().unwrap().contains(words), "{}", answer.text);
    }
    for (kind, body) in [
        ("multipart/form-data", "x"),
        ("multipart/form-data; boundary=X", "x"),
        ("multipart/form-data; boundary=X", "--X\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\na"),
        ("application/json", "{bad"),
        ("application/x-www-form-urlencoded", "prompt=a"),
    ] {
        let answer = server.send(server.request("POST", PATH).header("content-type", kind).body(body)).await;
        let code = answer.json["error"]["code"].as_str().unwrap();
        assert_eq!((answer.status, code.starts_with("invalid_")), (400, true), "{kind}: {}", answer.text);
    }
    let options = server.send(server.request("OPTIONS", PATH)).await;
    assert_eq!((options.status, options.headers["allow"].as_bytes()), (204, &b"OPTIONS, POST"[..]));
}

//! Pictures as inputs: how they come in, where they are shown, and what becomes of those that cannot be used.

mod refused;

use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tests::{Receiver, Server};
use tokio::net::TcpListener;

/// Four quarters of 48x32 pixels in all: red and green above blue and white.
const QUARTERS: &[u8] = include_bytes!("../../../pictures/quarters.png");
const JPEG: &[u8] = include_bytes!("../../../pictures/quarters.jpg");
const TURNED: &[u8] = include_bytes!("../../../pictures/turned.jpg");
const WEBP: &[u8] = include_bytes!("../../../pictures/quarters.webp");
/// What the stand-in logs of the quarters.
const SEEN: &str = "48x32 130,125,130";

fn uri(bytes: &[u8]) -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(bytes))
}

fn body(more: &Value) -> Value {
    let mut input = json!({"prompt": "a", "num_inference_steps": 1, "width": 1024});
    for (name, value) in more.as_object().unwrap() {
        input[name] = value.clone();
    }
    json!({ "input": input })
}

/// A server of files that are good for nothing or something, which counts what it is asked for.
struct Host {
    url: String,
    asked: Arc<AtomicUsize>,
}

impl Host {
    async fn start() -> Self {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let serve = get(move |Path(name): Path<String>| {
            let before = counted.fetch_add(1, Ordering::SeqCst);
            std::future::ready(Self::answer(&name, before))
        });
        let routes = Router::new().route("/{name}", serve);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { url, asked }
    }

    fn answer(name: &str, before: usize) -> Response {
        let (media, bytes) = match name {
            "picture.png" => ("image/png", QUARTERS),
            "once.png" if before == 0 => ("image/png", QUARTERS),
            // A type that is not true does not matter, and neither does a name.
            "lie.gif" => ("text/html", JPEG),
            "page.png" => ("image/png", &b"<!doctype html><title>no picture</title>"[..]),
            "half.png" => ("image/png", &QUARTERS[..QUARTERS.len() / 2]),
            "moved" => return (StatusCode::FOUND, [("location", "/picture.png")]).into_response(),
            "inside" => return (StatusCode::FOUND, [("location", "http://169.254.169.254/")]).into_response(),
            _ => return StatusCode::NOT_FOUND.into_response(),
        };
        ([("content-type", media)], bytes).into_response()
    }

    fn count(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// The bytes under a URL of the server, asked for without a token.
async fn file(server: &Server, url: &Value) -> (u16, String, Vec<u8>) {
    let path = url.as_str().unwrap().strip_prefix(&server.url).unwrap_or_else(|| panic!("{url} is not of this server"));
    let response = server.request("GET", path).send().await.unwrap();
    let media = response.headers()["content-type"].to_str().unwrap().to_owned();
    (response.status().as_u16(), media, response.bytes().await.unwrap().to_vec())
}

#[tokio::test]
async fn a_data_uri_is_stored_once_and_shown_as_a_url() {
    for data in [&[][..], &["--data-dir", "none"]] {
        let server = Server::start(&[data, &["--output", "files", "--log", "debug"]].concat()).await;
        let receiver = Receiver::start(&[]).await;
        let mut asks =
            body(&json!({"image": uri(QUARTERS), "anchor_image": uri(JPEG), "image_left": 8, "strength": 0.5}));
        asks["id"] = json!("a");
        asks["webhook"] = json!(format!("{}/hook", receiver.url));
        let made = server.predict(&asks).await;
        assert_eq!((made.status, &made.json["status"]), (200, &json!("succeeded")), "{}", made.text);
        let input = &made.json["input"];
        assert_eq!((&input["image_left"], &input["strength"]), (&json!(8), &json!(0.5)));
        let logs = made.json["logs"].as_str().unwrap();
        assert!(logs.contains(&format!("given image {SEEN}")) && logs.contains("given anchor_image 48x32"), "{logs}");

        assert_eq!(file(&server, &input["image"]).await, (200, "image/png".to_owned(), QUARTERS.to_vec()));
        assert_eq!(file(&server, &input["anchor_image"]).await, (200, "image/jpeg".to_owned(), JPEG.to_vec()));
        let (_, _, png) = file(&server, &made.json["output"]).await;
        let tells = |text: &str| png.windows(text.len()).any(|part| part == text.as_bytes());
        assert!(tells("\"image\":\"sha256:") && tells(", Image: sha256:") && !tells("/files/"));

        let stream = server.get("/predictions/a/stream").await.text;
        let list = server.get("/predictions").await.text;
        let sent = receiver.wait(|sent| sent.iter().any(|one| one.json["status"] == "succeeded")).await;
        let bodies: Vec<String> = sent.iter().map(|one| one.json.to_string()).collect();
        for said in bodies.iter().chain([&made.text, &stream, &list, &server.log()]) {
            for data in [QUARTERS, JPEG] {
                assert!(!said.contains(&STANDARD.encode(data)[..40]), "{said}");
            }
        }
        assert_eq!(sent.last().unwrap().json["input"], *input);
        assert_eq!(server.get("/predictions/a").await.json["input"], *input);

        // What a response shows makes the same again, of which there is another copy.
        let again = server.predict(&json!({"input": input})).await.json;
        assert!(again["logs"].as_str().unwrap().contains(SEEN), "{again}");
        assert_eq!(server.send(server.request("DELETE", "/predictions/a")).await.status, 204);
        assert_eq!(file(&server, &input["image"]).await.0, 404);
        assert_eq!(file(&server, &again["input"]["image"]).await.2, QUARTERS);
        let gone = server.predict(&json!({"input": input})).await;
        assert!(gone.status == 422 && gone.text.contains("no such file"), "{}", gone.text);
    }
}

#[tokio::test]
async fn no_token_is_needed_to_see_a_picture_that_was_given() {
    let server = Server::start(&["--api-token", "secret"]).await;
    let headers = [("authorization", "Bearer secret")];
    let made = server.json("POST", "/predictions", &headers, &body(&json!({"image": uri(WEBP)}))).await;
    assert_eq!(made.json["status"], "succeeded", "{}", made.text);
    assert_eq!(file(&server, &made.json["input"]["image"]).await, (200, "image/webp".to_owned(), WEBP.to_vec()));
}

#[tokio::test]
async fn a_url_is_fetched_before_its_prediction_is_queued_and_never_again() {
    let (dir, host) = (tempfile::tempdir().unwrap(), Host::start().await);
    let go = dir.path().join("go");
    let mut server = Server::launch_in(&dir.path().join("data"), &[], &[]);
    server.until_health(&["READY"]).await;
    let busy = json!({"prompt": format!("until={}", go.display()), "num_inference_steps": 2, "width": 512});
    server.predict_async(&json!({"id": "busy", "input": busy})).await;
    let asks = body(&json!({"image": format!("{}/moved?secret=hush", host.url)}));
    for round in 0..3 {
        let put = server.json("PUT", "/predictions/waits", &[("prefer", "respond-async")], &asks).await;
        assert_eq!((put.status, &put.json["status"]), (202, &json!("starting")), "{round}: {}", put.text);
        assert_eq!(host.count(), 2, "the redirect and the picture, once");
    }
    let posted = server.predict(&json!({"id": "waits", "input": asks["input"]})).await;
    assert!(posted.status == 409 && host.count() == 2, "{}", posted.text);
    server.kill();

    std::fs::write(&go, "").unwrap();
    let server = Server::launch_in(&dir.path().join("data"), &[], &[]);
    let made = server.ended("waits").await;
    assert_eq!((&made["status"], host.count()), (&json!("succeeded"), 2));
    assert!(made["logs"].as_str().unwrap().contains(&format!("given image {SEEN}")), "{made}");
    assert!(!made.to_string().contains("hush") && !server.log().contains("hush"));
}

#[tokio::test]
async fn nothing_is_fetched_for_what_there_is_no_room_for() {
    let (dir, host) = (tempfile::tempdir().unwrap(), Host::start().await);
    let server = Server::start(&["--queue-size", "0"]).await;
    let never = json!({"prompt": format!("until={}", dir.path().join("never").display()), "width": 512});
    server.predict_async(&json!({"id": "busy", "input": never})).await;
    let asks = body(&json!({"image": format!("{}/picture.png", host.url)}));
    let refused = server.predict(&asks).await;
    assert_eq!((refused.status, host.count()), (409, 0), "{}", refused.text);
    server.json("POST", "/predictions/busy/cancel", &[], &json!({})).await;
    server.ended("busy").await;
    assert_eq!((server.predict(&asks).await.status, host.count()), (200, 1));
}

#[tokio::test]
async fn a_repeated_request_needs_neither_its_picture_nor_room() {
    let (dir, host) = (tempfile::tempdir().unwrap(), Host::start().await);
    let go = dir.path().join("go");
    let server = Server::start(&["--queue-size", "0"]).await;
    let prompt = format!("until={}", go.display());
    let asks = body(&json!({"image": format!("{}/once.png", host.url), "prompt": prompt}));
    let (key, at_once) = (("idempotency-key", "k"), ("prefer", "respond-async"));
    let first = server.json("POST", "/predictions", &[key, at_once], &asks).await;
    assert_eq!(first.status, 202, "{}", first.text);
    // It takes all the room that there is, and its picture is gone.
    let again = server.json("POST", "/predictions", &[key, at_once], &asks).await;
    assert_eq!((again.status, &again.json["id"], host.count()), (202, &first.json["id"], 1), "{}", again.text);
    let other = server.json("POST", "/predictions", &[key, at_once], &body(&json!({"prompt": "b"}))).await;
    assert!(other.status == 422 && other.text.contains("`Idempotency-Key`"), "{}", other.text);
    std::fs::write(&go, "").unwrap();
    let ended = server.ended(first.json["id"].as_str().unwrap()).await;
    let later = server.json("POST", "/predictions", &[key], &asks).await;
    assert_eq!((later.status, &later.json, host.count()), (200, &ended, 1));
    let new = server.json("POST", "/predictions", &[("idempotency-key", "l")], &asks).await;
    assert!(new.status == 422 && new.text.contains("404") && host.count() == 2, "{}", new.text);
}

#[tokio::test]
async fn a_repeated_edit_needs_its_picture_once() {
    let (server, host) = (Server::start(&[]).await, Host::start().await);
    let asks = json!({"prompt": "a", "num_inference_steps": 4, "image": format!("{}/once.png", host.url)});
    let edit = async || server.json("POST", "/v1/images/edits", &[("idempotency-key", "k")], &asks).await;
    let (first, again) = (edit().await, edit().await);
    assert_eq!((first.status, again.status, host.count()), (200, 200, 1), "{} {}", first.text, again.text);
    assert_eq!(first.json["data"][0]["prediction_id"], again.json["data"][0]["prediction_id"]);
}

#[tokio::test]
async fn a_file_of_this_server_is_known_under_every_address() {
    let server = Server::start(&["--allow-private-urls=false"]).await;
    let port = server.url.rsplit_once(':').unwrap().1;
    let host = format!("localhost:{port}");
    let made = server.json("POST", "/predictions", &[("host", &host)], &body(&json!({"image": uri(QUARTERS)}))).await;
    let url = made.json["input"]["image"].as_str().unwrap();
    assert!(made.json["status"] == "succeeded" && url.starts_with(&format!("http://{host}/files/")), "{}", made.text);
    // Through another address, and behind a proxy that nobody here knows.
    let path = url.strip_prefix(&format!("http://{host}")).unwrap();
    for address in [url.to_owned(), format!("https://panorama.example/below{path}")] {
        let again = server.predict(&body(&json!({ "image": address }))).await;
        assert_eq!((again.status, &again.json["status"]), (200, &json!("succeeded")), "{address}: {}", again.text);
        assert_eq!(file(&server, &again.json["input"]["image"]).await.2, QUARTERS);
    }
    // One that is not here is another server's, which the guard judges.
    let unknown = format!("http://{host}/files/{}.png", "0".repeat(40));
    let refused = server.predict(&body(&json!({ "image": unknown }))).await;
    assert!(refused.status == 422 && refused.text.contains("--allow-private-urls"), "{}", refused.text);
}

#[tokio::test]
async fn another_worker_gets_the_pictures_again() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&[]).await;
    let prompt = format!("crash-once={}", dir.path().join("crashed").display());
    let made = server.predict(&body(&json!({"prompt": prompt, "image": uri(QUARTERS)}))).await.json;
    assert_eq!(made["status"], "succeeded", "{made}");
    let logs = made["logs"].as_str().unwrap();
    assert_eq!(logs.matches(&format!("given image {SEEN}")).count(), 2, "{logs}");
}

#[tokio::test]
async fn jobs_with_pictures_are_canceled_and_mixed_with_others() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::launch(&[], &[("STAND_IN_JOBS", "4")]);
    server.until_health(&["READY"]).await;
    let never = format!("until={}", dir.path().join("never").display());
    for n in 0..6 {
        let picture = if n % 2 == 0 { json!(uri(TURNED)) } else { Value::Null };
        let mut asks = body(&json!({"prompt": never, "num_inference_steps": 2, "image": picture}));
        asks["id"] = json!(n.to_string());
        assert_eq!(server.predict_async(&asks).await.status, 202);
    }
    for n in 0..6 {
        assert_eq!(server.json("POST", &format!("/predictions/{n}/cancel"), &[], &json!({})).await.status, 200);
    }
    for n in 0..6 {
        assert_eq!(server.ended(&n.to_string()).await["status"], "canceled");
    }
    let made = server.predict(&body(&json!({"image": uri(TURNED)}))).await.json;
    assert!(made["logs"].as_str().unwrap().contains("given image 48x32"), "turned as its EXIF says: {made}");
}

/// The text of a picture, its bytes and what a reader needs besides: less than three times what came.
#[tokio::test]
async fn a_large_picture_costs_less_than_three_times_its_size() {
    let server = Server::start(&[]).await;
    server.predict(&body(&json!({"image": uri(QUARTERS)}))).await;
    let before = server.peak_memory();
    // Escaped, so that it cannot be read in place.
    let text = format!("data:image\\/png;base64,{}", "A".repeat(42 << 20));
    let asks = format!(r#"{{"input":{{"prompt":"a","image":"{text}"}}}}"#);
    let length = asks.len();
    let request = server.request("POST", "/predictions").header("content-type", "application/json").body(asks);
    let refused = server.send(request).await;
    assert!(refused.status == 422 && refused.text.contains("not a PNG"), "{}", refused.text);
    let grown = server.peak_memory() - before;
    assert!(grown < 3 * length + (20 << 20), "{} MiB for {} MiB", grown >> 20, length >> 20);
}

fn generate(arguments: &[&str]) -> (Output, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("picture.png"), QUARTERS).unwrap();
    std::fs::write(dir.path().join("page.png"), "<html>").unwrap();
    let mut command = Command::new(tests::binary());
    command.arg("generate").arg("--worker").arg(tests::stand_in()).current_dir(dir.path());
    let output =
        command.args(["--prompt", "a", "--width", "1024", "--num-inference-steps", "1"]).args(arguments).output();
    (output.unwrap(), dir)
}

#[test]
fn on_the_command_line_a_picture_is_a_file() {
    let (output, dir) = generate(&["--image", "picture.png", "--image-left", "8", "--prompts", "b", "--prompts", "-c"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains(&format!("given image {SEEN}")), "{said}");
    let png = std::fs::read(dir.path().join("out.png")).unwrap();
    let tells = |text: &str| png.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(tells("\"image\":\"sha256:") && tells("[\"b\",\"-c\"]"));
    for (arguments, words) in [
        (&["--image", "nothing.png"][..], "image: cannot read `nothing.png`"),
        (&["--image", "page.png"], "image: this is not a picture, but HTML"),
        (&["--anchor-image", "https://example.com/a.png"], "anchor_image: on the command line a picture is a file"),
        (&["--image", "picture.png", "--image-left", "300"], "image_left: `image_left` is 300"),
        (&["--image", "picture.png", "--width", "640"], "image: `image` is 768 pixels wide"),
        (&["--strength", "0.5"], "strength: it says how much of `image`"),
        (&["--prompts", "b"], "prompts: one text leads nowhere"),
    ] {
        let (output, dir) = generate(arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && said.starts_with(words), "{arguments:?}: {said}");
        assert!(!dir.path().join("out.png").exists());
    }
}

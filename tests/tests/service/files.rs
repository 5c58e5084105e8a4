//! Pictures under URLs of this server (`--output files`), and pictures without metadata.

use serde_json::{Value, json};
use tests::{Receiver, Server};

fn body(id: &str) -> Value {
    json!({"id": id, "input": {"prompt": "日本 🏔 ñ", "num_inference_steps": 1, "width": 512}})
}

/// The path of an output, which must be a file of this server.
fn path(server: &Server, prediction: &Value) -> String {
    let output = prediction["output"].as_str().unwrap_or_else(|| panic!("{prediction}"));
    let path = output.strip_prefix(&server.url).unwrap_or_else(|| panic!("{output} is not of {}", server.url));
    assert!(
        path.starts_with("/files/") && path.strip_suffix(".png").is_some() && path.len() == "/files/.png".len() + 40,
        "{path}"
    );
    path.to_owned()
}

async fn bytes(server: &Server, path: &str, headers: &[(&str, &str)]) -> (u16, reqwest::header::HeaderMap, Vec<u8>) {
    let mut request = server.request("GET", path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.headers().clone(), response.bytes().await.unwrap().to_vec())
}

#[tokio::test]
async fn a_picture_is_served_under_an_unguessable_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::launch_in(dir.path(), &["--output", "files"], &[]);
    server.until_health(&["READY"]).await;
    let one = server.predict(&body("../../etc/passwd ü")).await.json;
    server.predict_async(&body("other")).await;
    let other = server.ended("other").await;
    let (file, other) = (path(&server, &one), path(&server, &other));
    assert_ne!(file, other);

    let (status, headers, png) = bytes(&server, &file, &[]).await;
    assert_eq!((status, headers["content-type"].as_bytes()), (200, &b"image/png"[..]));
    assert!(png.starts_with(b"\x89PNG") && png.ends_with(b"IEND\xaeB`\x82"));
    assert_eq!(headers["cache-control"], "public, max-age=31536000, immutable");
    assert_eq!(headers["content-disposition"], format!("inline; filename=\"panorama-{}.png\"", &file[7..15]));
    assert_eq!(headers["x-content-type-options"], "nosniff");
    let tag = headers["etag"].to_str().unwrap().to_owned();

    let head = server.request("HEAD", &file).send().await.unwrap();
    assert_eq!(
        (head.status(), head.headers()["content-length"].to_str().unwrap()),
        (reqwest::StatusCode::OK, png.len().to_string().as_str())
    );
    for list in [tag.clone(), format!("\"x\", W/{tag}"), "*".to_owned()] {
        let (status, _, empty) = bytes(&server, &file, &[("if-none-match", &list)]).await;
        assert_eq!((status, empty.len()), (304, 0), "{list}");
    }
    let (status, headers, part) = bytes(&server, &file, &[("range", "bytes=1-3")]).await;
    assert_eq!((status, part.as_slice()), (206, &b"PNG"[..]));
    assert_eq!(headers["content-range"], format!("bytes 1-3/{}", png.len()));
    assert_eq!(bytes(&server, &file, &[("range", "bytes=-8")]).await.2, png[png.len() - 8..]);
    for beyond in ["bytes=99999999-", "bytes=99999998-99999999"] {
        assert_eq!(bytes(&server, &file, &[("range", beyond)]).await.0, 416, "{beyond}");
    }
    for whole in [
        &[("range", "bytes=5-2")][..],
        &[("range", "bytes=99999999-5")],
        &[("range", "lines=1-2")],
        &[("range", "bytes=0-1,4-5")],
        &[("range", "bytes=-99999999")],
        &[("range", "bytes=0-1"), ("if-range", "\"old\"")],
    ] {
        assert_eq!(bytes(&server, &file, whole).await.0, 200, "{whole:?}");
    }
    for range in ["bytes=1-3", "bytes=99999999-"] {
        let head = server.request("HEAD", &file).header("range", range).send().await.unwrap();
        let length = head.headers()["content-length"].to_str().unwrap();
        assert_eq!((head.status().as_u16(), length), (200, png.len().to_string().as_str()), "{range}");
        assert!(!head.headers().contains_key("content-range"), "{range}");
    }

    for wrong in [
        "/files/",
        "/files/x.png",
        "/files/..%2f..%2fetc%2fpasswd",
        "/files/..%5c..%5cx",
        "/files/%00",
        "/files/%E6%97%A5.png",
        "/files/../predictions",
    ] {
        let status = server.get(wrong).await.status;
        assert!(status == 404 || wrong.contains("../"), "{wrong}: {status}");
    }

    // It survives a restart, and is deleted with its prediction.
    server.kill();
    let mut server = Server::launch_in(dir.path(), &["--output", "files"], &[]);
    server.until_health(&["READY"]).await;
    assert_eq!(bytes(&server, &file, &[]).await.2, png);
    assert_eq!(server.send(server.request("DELETE", "/predictions/other")).await.status, 204);
    assert_eq!((server.get(&other).await.status, server.get(&file).await.status), (404, 200));
    server.kill();
    let server = Server::launch_in(dir.path(), &["--output", "files", "--keep-count", "0"], &[]);
    server.until_health(&["READY"]).await;
    server.until_status(&file, 404).await;
}

#[tokio::test]
async fn the_url_is_the_one_that_clients_use() {
    for data in ["none", ""] {
        let dir = tempfile::tempdir().unwrap();
        let data = if data.is_empty() { dir.path().to_str().unwrap() } else { data };
        let flags = ["--output", "files", "--public-url", "https://panoramas.example/api/", "--data-dir", data];
        // The receiver is on this machine.
        let server = Server::start(&[&flags[..], &["--allow-private-urls"]].concat()).await;
        let receiver = Receiver::start(&[]).await;
        let mut body = body("a");
        body["webhook"] = json!(format!("{}/hook", receiver.url));
        body["webhook_events_filter"] = json!(["completed"]);
        let output = server.predict(&body).await.json["output"].clone();
        let name = output.as_str().unwrap().strip_prefix("https://panoramas.example/api/files/").unwrap().to_owned();
        assert_eq!(server.get(&format!("/files/{name}")).await.status, 200);
        assert_eq!(receiver.wait(|sent| !sent.is_empty()).await[0].json["output"], output);
        assert_eq!(server.get("/predictions").await.json["results"][0]["output"], output);
        assert_eq!(server.get("/predictions/a/output").await.status, 200, "it is there, too");
    }
}

#[tokio::test]
async fn a_picture_without_metadata_contains_no_text() {
    for (flags, told) in [(&[][..], true), (&["--no-metadata"], false)] {
        let server = Server::start(&[&["--output", "files"], flags].concat()).await;
        let prediction = server.predict(&body("a")).await.json;
        let (_, headers, png) = bytes(&server, &path(&server, &prediction), &[]).await;
        let holds = |text: &str| png.windows(text.len()).any(|part| part == text.as_bytes());
        for text in ["日本 🏔 ñ", "parameters", "iTXt", "trainedAlgorithmicMedia", "num_inference_steps"] {
            assert_eq!(holds(text), told, "{text}");
        }
        assert!(!format!("{headers:?}").contains("日本"));
    }
}

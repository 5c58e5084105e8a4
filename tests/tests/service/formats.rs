//! Pictures as PNG, JPEG and WebP: media types, names and what is written into them, on every way out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tests::{Receiver, Server};

/// Each format: its name, its media type, the end of its file names, and its first bytes.
const FORMATS: [(&str, &str, &str, &[u8]); 3] = [
    ("png", "image/png", ".png", b"\x89PNG"),
    ("jpeg", "image/jpeg", ".jpg", b"\xff\xd8\xff"),
    ("webp", "image/webp", ".webp", b"RIFF"),
];

fn body(format: &str) -> Value {
    json!({"id": format, "input": {"prompt": "a lake", "num_inference_steps": 1, "width": 512, "output_format": format}})
}

async fn fetch(server: &Server, path: &str) -> (String, Option<String>, Vec<u8>) {
    let response = server.request("GET", path).send().await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    (header("content-type").unwrap(), header("content-disposition"), response.bytes().await.unwrap().to_vec())
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|part| part == text.as_bytes())
}

#[tokio::test]
async fn the_output_says_what_it_is() {
    let server = Server::start(&[]).await;
    for (format, media, _, first) in FORMATS {
        let prediction = server.predict(&body(format)).await.json;
        let output = prediction["output"].as_str().unwrap_or_else(|| panic!("{prediction}")).to_owned();
        let data = output.strip_prefix(&format!("data:{media};base64,")).unwrap_or_else(|| panic!("{}", &output[..40]));
        let bytes = STANDARD.decode(data).unwrap();
        assert!(bytes.starts_with(first));
        for text in ["a lake", "trainedAlgorithmicMedia", "num_inference_steps"] {
            assert!(holds(&bytes, text), "{format}: {text}");
        }
        let (kind, _, file) = fetch(&server, &format!("/predictions/{format}/output")).await;
        assert!(kind == media && file == bytes, "{format}");
        let again = server.get(&format!("/predictions/{format}")).await.json;
        assert_eq!(again["output"], output, "{format}");
        let shown = &prediction["input"]["output_format"];
        assert_eq!(*shown, if format == "png" { Value::Null } else { format.into() }, "what is usual is not shown");
        let (kind, _, copy) = fetch(&server, &format!("/predictions/{format}/output?width=64")).await;
        assert!(kind == "image/jpeg" && copy.starts_with(b"\xff\xd8\xff"), "{format}");
    }
    let size = async |quality: u32| {
        let mut body = body("jpeg");
        body["input"]["output_quality"] = json!(quality);
        server.predict(&body).await.json["output"].as_str().unwrap().len()
    };
    assert!(size(20).await < size(95).await);
}

#[tokio::test]
async fn what_cannot_be_is_refused_by_name() {
    let server = Server::start(&[]).await;
    for (field, value, message) in [
        ("output_format", json!("gif"), r#""gif" is not one of "png", "jpeg" or "webp""#),
        ("output_format", json!(1), "1 is not one of"),
        ("output_quality", json!(0), "0 is less than the minimum of 1"),
        ("output_quality", json!(101), "101 is greater than the maximum of 100"),
    ] {
        let mut body = body("png");
        body["input"][field] = value;
        let answer = server.predict(&body).await;
        assert_eq!(answer.status, 422, "{}", answer.text);
        let detail = &answer.json["detail"][0];
        assert_eq!(detail["loc"], json!(["body", "input", field]));
        assert!(detail["msg"].as_str().unwrap().contains(message), "{detail}");
    }
}

#[tokio::test]
async fn files_have_the_name_and_type_of_their_format() {
    let server = Server::start(&["--output", "files", "--no-metadata"]).await;
    for (format, media, end, first) in FORMATS {
        let output = server.predict(&body(format)).await.json["output"].as_str().unwrap().to_owned();
        let path = output.strip_prefix(&server.url).unwrap();
        assert!(path.ends_with(end), "{path}");
        let (kind, name, bytes) = fetch(&server, path).await;
        assert_eq!(
            (kind.as_str(), name.unwrap()),
            (media, format!("inline; filename=\"panorama-{}{end}\"", &path[7..15]))
        );
        assert!(bytes.starts_with(first));
        for text in ["a lake", "Exif", "EXIF", "rdf:", "num_inference_steps"] {
            assert!(!holds(&bytes, text), "{format}: {text}");
        }
    }
}

#[tokio::test]
async fn uploads_have_the_name_and_type_of_their_format() {
    let receiver = Receiver::start(&[]).await;
    let url = format!("{}/up", receiver.url);
    let server = Server::start(&["--upload-url", &url]).await;
    for (at, (format, media, end, first)) in FORMATS.into_iter().enumerate() {
        let mut body = body(format);
        let output = server.predict(&body).await.json["output"].clone();
        assert_eq!(output, format!("{url}/output{end}"));
        let sent = receiver.wait(|sent| sent.len() == 2 * at + 1).await[2 * at].clone();
        assert!(sent.headers["content-type"] == media && sent.body.starts_with(first), "{format}");
        body["id"] = json!(format!("{format} form"));
        body["output_file_prefix"] = json!(format!("{}/form-", receiver.url));
        let output = server.predict(&body).await.json["output"].clone();
        assert_eq!(output, format!("{}/form-output{end}", receiver.url));
        let form = receiver.wait(|sent| sent.len() == 2 * at + 2).await[2 * at + 1].body.clone();
        assert!(holds(&form, &format!("filename=\"output{end}\"\r\nContent-Type: {media}\r\n")), "{format}");
    }
}

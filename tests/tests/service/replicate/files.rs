//! Files that clients upload.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tests::Server;

use super::{assert_problem, create, path};

/// A body of several parts, each with its name and more.
fn parts(parts: &[(&str, &str, &str)]) -> String {
    let one = |(name, more, content): &(&str, &str, &str)| {
        format!("--xx\r\ncontent-disposition: form-data; name=\"{name}\"{more}\r\n\r\n{content}\r\n")
    };
    parts.iter().map(one).collect::<String>() + "--xx--\r\n"
}

#[tokio::test]
async fn files_are_kept_for_their_owner() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = ["--api-token", "one,two"];
    let mut server = Server::launch_in(dir.path(), &tokens, &[]);
    server.until_health(&["READY"]).await;
    let ask = |server: &Server, method: &str, path: &str, token: &str| {
        server.request(method, path).header("authorization", format!("Bearer {token}"))
    };
    let upload = |server: &Server, token: &str, body: String| {
        ask(server, "POST", "/v1/files", token).header("content-type", "multipart/form-data; boundary=xx").body(body)
    };
    let whole = parts(&[
        ("metadata", "; filename=\"blob\"\r\ncontent-type: application/json", "{\"a\":1}"),
        ("content", "; filename=\"hello.txt\"\r\ncontent-type: text/plain", "hello"),
    ]);
    let made = server.send(upload(&server, "one", whole.clone())).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let file = made.json;
    assert_eq!(
        (&file["name"], &file["content_type"], &file["size"]),
        (&json!("hello.txt"), &json!("text/plain"), &json!(5))
    );
    assert_eq!(file["metadata"], json!({"a": 1}));
    assert_eq!(file["checksums"]["sha256"], "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
    let url = path(&server, &file["urls"]["get"]);
    assert_eq!(server.send(ask(&server, "GET", &url, "one")).await.json, file);
    assert_problem(&server.send(ask(&server, "GET", &url, "two")).await, 404);
    assert_problem(&server.send(ask(&server, "DELETE", &url, "two")).await, 404);
    assert_problem(&server.get(&url).await, 401);
    assert_eq!(server.send(ask(&server, "GET", "/v1/files", "two")).await.json["results"], json!([]));

    server.kill();
    let server = Server::launch_in(dir.path(), &tokens, &[]);
    server.until_health(&["READY"]).await;
    let listed = server.send(ask(&server, "GET", "/v1/files", "one")).await.json;
    assert_eq!(listed["results"][0]["id"], file["id"], "it outlives the process");
    assert_eq!(server.send(ask(&server, "DELETE", &url, "one")).await.status, 204);
    assert_problem(&server.send(ask(&server, "GET", &url, "one")).await, 404);

    for (kind, body, status) in [
        ("text/plain", "x".to_owned(), 415),
        ("multipart/form-data; boundary=xx", "--xx\r\nbroken".to_owned(), 400),
        ("multipart/form-data; boundary=xx", parts(&[("metadata", "", "{}")]), 422),
        ("multipart/form-data; boundary=xx", parts(&[("content", "", "x"), ("metadata", "", "[]")]), 422),
        (
            "multipart/form-data; boundary=xx",
            parts(&[("content", &format!("; filename=\"{}\"", "x".repeat(300)), "x")]),
            422,
        ),
    ] {
        let request = ask(&server, "POST", "/v1/files", "one").header("content-type", kind).body(body);
        assert_problem(&server.send(request).await, status);
    }
}

#[tokio::test]
async fn a_file_is_an_input_for_its_owner_alone() {
    let server = Server::start(&["--api-token", "one,two", "--allow-private-urls=false"]).await;
    let one = ("authorization", "Bearer one");
    let drawn = json!({"input": {"prompt": "a", "num_inference_steps": 1, "width": 1024}});
    let drawn = create(&server, &[one, ("prefer", "wait")], &drawn).await.json;
    let data = drawn["output"].as_str().unwrap().strip_prefix("data:image/png;base64,").unwrap();
    let png = STANDARD.decode(data).unwrap();
    let head = b"--xx\r\ncontent-disposition: form-data; name=\"content\"; filename=\"a.png\"\r\n\r\n";
    let body = [&head[..], &png, b"\r\n--xx--\r\n"].concat();
    let upload = server.request("POST", "/v1/files").header("authorization", "Bearer one").body(body);
    let file = server.send(upload.header("content-type", "multipart/form-data; boundary=xx")).await.json;
    assert_eq!(file["size"], png.len());
    let input = json!({"prompt": "a", "num_inference_steps": 1, "image": file["urls"]["get"]});
    let with = create(&server, &[one, ("prefer", "wait")], &json!({ "input": input })).await;
    assert_eq!((with.status, &with.json["status"]), (201, &json!("succeeded")), "{}", with.text);
    let refused = create(&server, &[("authorization", "Bearer two")], &json!({ "input": input })).await;
    assert_problem(&refused, 422);
    assert_eq!(refused.json["invalid_fields"][0]["field"], "input.image", "{}", refused.text);
}

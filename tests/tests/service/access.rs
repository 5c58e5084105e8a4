//! Access: tokens on every route, CORS, and the headers of every response.

use serde_json::{Value, json};
use tests::{Answer, Server};

const TOKEN: &str = "right-5f0c";

/// Every operation of the server's OpenAPI document, with an id in the paths that need one.
async fn operations(server: &Server) -> Vec<(String, String)> {
    let document = server.get("/openapi.json").await.json;
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap().keys();
        methods.map(move |method| (method.to_uppercase(), path.replace("{prediction_id}", "abc")))
    });
    operations.collect()
}

async fn ask(server: &Server, method: &str, path: &str, authorization: Option<&str>) -> Answer {
    let mut request = server.request(method, path).header("content-type", "application/json").body("{}");
    if let Some(value) = authorization {
        request = request.header("authorization", value);
    }
    server.send(request).await
}

#[tokio::test]
async fn every_route_except_health_metrics_and_pages_needs_a_token() {
    let server = Server::start(&["--api-token", &format!("other,{TOKEN}")]).await;
    let open =
        ["/", "/docs", "/health-check", "/live", "/metrics", "/openapi.json", "/playground", "/ready", "/view/abc"];
    let (mut guarded, mut opened) = (0, 0);
    for (method, path) in operations(&server).await {
        let bare = ask(&server, &method, &path, None).await;
        // The name of a file is a secret itself, and so are the key of a picture and the address of a stream.
        let secret = ["/files/", "/v1/files/output/", "/v1/files/stream/"];
        if secret.iter().any(|below| path.starts_with(below)) || path.ends_with("/picture") {
            assert_eq!(bare.status, 404, "{method} {path}");
            continue;
        }
        if open.contains(&path.as_str()) {
            assert_eq!(bare.status, 200, "{method} {path}");
            opened += 1;
            continue;
        }
        if method == "OPTIONS" {
            assert_eq!(bare.status, 204, "{path}: it does nothing");
            continue;
        }
        for wrong in [None, Some("Bearer wrong"), Some("Bearer "), Some("Basic right-5f0c"), Some(TOKEN)] {
            let refused = ask(&server, &method, &path, wrong).await;
            assert_eq!(refused.status, 401, "{method} {path} {wrong:?}");
            assert_eq!(refused.headers["www-authenticate"], "Bearer");
            let words = [&refused.json["detail"], &refused.json["error"]["message"]];
            assert!(
                words.iter().any(|words| words.as_str().is_some_and(|is| is.contains("token"))),
                "{}",
                refused.text
            );
        }
        // The last one stops the server.
        if path != "/shutdown" {
            for right in [format!("Bearer {TOKEN}"), format!("Token {TOKEN}"), "bearer other".to_owned()] {
                assert_ne!(ask(&server, &method, &path, Some(&right)).await.status, 401, "{method} {path}");
            }
        }
        guarded += 1;
    }
    assert!(opened == open.len() && guarded >= 9, "{opened} open and {guarded} guarded operations");
    // Unknown paths reveal nothing either.
    for path in ["/nope", "/predictions/", "/predictions/a/b/c", "//predictions"] {
        assert_eq!(ask(&server, "GET", path, None).await.status, 401, "{path}");
        assert_eq!(ask(&server, "GET", path, Some(&format!("Bearer {TOKEN}"))).await.status, 404, "{path}");
    }
    assert_eq!(ask(&server, "TRACE", "/predictions", None).await.status, 401);
    let body = json!({"input": {"prompt": "a", "num_inference_steps": 1}});
    let made = server.json("POST", "/predictions", &[("authorization", "Bearer other")], &body).await;
    assert_eq!((made.status, &made.json["status"]), (200, &json!("succeeded")));
    let mut server = server;
    assert_eq!(ask(&server, "POST", "/shutdown", Some(&format!("Bearer {TOKEN}"))).await.status, 200);
    assert!(server.exit().await.success());
}

#[tokio::test]
async fn tokens_come_from_files_and_the_environment_too() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokens");
    std::fs::write(&file, "# for the gallery\n\n  in-a-file \nanother\n").unwrap();
    let file = file.to_str().unwrap();
    let server = Server::launch(&["--api-token-file", file, "--api-token", "one", "--api-token", "two"], &[]);
    server.until_health(&["READY"]).await;
    for token in ["in-a-file", "another", "one", "two"] {
        let status = ask(&server, "GET", "/predictions", Some(&format!("Bearer {token}"))).await.status;
        assert_eq!(status, 200, "{token}");
    }
    for wrong in ["#", "for", "# for the gallery", "one,two"] {
        assert_eq!(ask(&server, "GET", "/predictions", Some(&format!("Bearer {wrong}"))).await.status, 401, "{wrong}");
    }
    let server = Server::launch(&[], &[("SYNCDIFFUSION_API_TOKEN", "from-outside,second")]);
    assert_eq!(ask(&server, "GET", "/predictions", None).await.status, 401);
    assert_eq!(ask(&server, "GET", "/predictions", Some("Bearer second")).await.status, 200);
}

#[tokio::test]
async fn invalid_tokens_are_rejected_and_never_printed() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty");
    std::fs::write(&empty, "# nothing yet\n").unwrap();
    let worker = tests::stand_in();
    for (flag, value, words) in [
        ("--api-token", "has two spaces", "a token is empty or has characters"),
        ("--api-token", "", "a token is empty or has characters"),
        ("--api-token-file", empty.to_str().unwrap(), "contains no token"),
        ("--api-token-file", "/nowhere/tokens", "cannot read `/nowhere/tokens`"),
    ] {
        let mut command = std::process::Command::new(tests::binary());
        command.args(["serve", "--host", "127.0.0.1", "--port", "0", "--data-dir", "none", flag, value]);
        let output = command.arg("--worker").arg(&worker).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(words), "{flag} {value}: {said}");
        assert!(!said.contains("two spaces"), "{said}");
    }
}

#[tokio::test]
async fn an_open_server_on_all_networks_warns() {
    let warning = "everybody who can reach this address may use the server";
    for (arguments, warns) in [
        (&["--host", "0.0.0.0"][..], true),
        (&["--host", "0.0.0.0", "--api-token", "x"], false),
        (&["--host", "127.0.0.1"], false),
    ] {
        // The worker starts after the warning.
        let log = Server::launch(arguments, &[]).logged("worker ready").await;
        assert_eq!(log.contains(warning), warns, "{arguments:?}\n{log}");
    }
}

#[tokio::test]
async fn other_origins_need_to_be_listed() {
    let preflight = |server: &Server, origin: &str| {
        let request = server.request("OPTIONS", "/predictions").header("origin", origin);
        let request = request.header("access-control-request-method", "POST");
        request.header("access-control-request-headers", "authorization,content-type,prefer")
    };
    let allowed = |answer: &Answer| {
        answer.headers.get("access-control-allow-origin").map(|origin| origin.to_str().unwrap().to_owned())
    };
    let server = Server::start(&[]).await;
    let answer = server.send(preflight(&server, "https://a.example")).await;
    assert_eq!((answer.status, allowed(&answer)), (405, None));
    let origins = "https://a.example,http://localhost:3000";
    let server = Server::start(&["--cors-origin", origins, "--api-token", TOKEN]).await;
    for origin in origins.split(',') {
        let answer = server.send(preflight(&server, origin)).await;
        assert_eq!((answer.status, allowed(&answer).as_deref()), (200, Some(origin)), "a preflight shows no token");
        assert!(answer.headers["access-control-allow-headers"].to_str().unwrap().contains("authorization"));
        let refused = server.send(server.request("GET", "/predictions").header("origin", origin)).await;
        assert_eq!((refused.status, allowed(&refused).as_deref()), (401, Some(origin)), "and a page can read why");
    }
    for origin in ["https://b.example", "https://a.example.b.example", "null"] {
        assert_eq!(allowed(&server.send(preflight(&server, origin)).await), None, "{origin}");
    }
    let server = Server::start(&["--cors-origin", "*"]).await;
    let answer = server.send(preflight(&server, "https://anywhere.example")).await;
    assert_eq!(allowed(&answer).as_deref(), Some("*"));
    assert!(answer.headers.get("access-control-allow-credentials").is_none());
}

#[tokio::test]
async fn every_response_has_an_id_and_security_headers() {
    let server = Server::start(&["--api-token", TOKEN]).await;
    let mut ids = std::collections::HashSet::new();
    for (method, path) in operations(&server).await.into_iter().chain([("GET".to_owned(), "/nope".to_owned())]) {
        let answer = ask(&server, &method, &path, None).await;
        assert_eq!(answer.headers["x-content-type-options"], "nosniff", "{method} {path}");
        assert_eq!(answer.headers["referrer-policy"], "no-referrer", "{method} {path}");
        let policy = answer.headers["content-security-policy"].to_str().unwrap();
        assert!(
            policy.contains("default-src 'none'") && policy.contains("frame-ancestors"),
            "{method} {path}: {policy}"
        );
        assert!(ids.insert(answer.headers["x-request-id"].to_str().unwrap().to_owned()), "{method} {path}");
    }
    let with_id = |id: &str| server.request("GET", "/health-check").header("x-request-id", id);
    assert_eq!(server.send(with_id("my-request/1")).await.headers["x-request-id"], "my-request/1");
    for bad in ["two words", &"x".repeat(129), "ü"] {
        assert_ne!(server.send(with_id(bad)).await.headers["x-request-id"].as_bytes(), bad.as_bytes());
    }
}

#[tokio::test]
async fn the_playground_sends_its_token() {
    let server = Server::start(&["--api-token", TOKEN]).await;
    let page = server.get("/playground").await;
    assert_eq!(page.status, 200);
    let files = tests::files_of(&page.text);
    assert!(files.iter().any(|file| file.ends_with("/main.js")), "{}", page.text);
    let mut whole = String::new();
    for file in &files {
        let answer = server.get(&format!("/{file}")).await;
        assert_eq!(answer.status, 200, "{file}: a page needs no token, and neither does what it loads");
        let kind = answer.headers["content-type"].to_str().unwrap();
        let expected = match file.rsplit_once('.').unwrap().1 {
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            _ => "image/svg+xml",
        };
        assert_eq!(kind, expected, "{file}");
        let kept = answer.headers["cache-control"].to_str().unwrap();
        assert!(kept.contains("immutable"), "{file}: {kept}");
        whole += &answer.text;
    }
    assert!(whole.contains("sessionStorage") && !whole.contains("new EventSource"));
    let old = server.get("/page/0000000000000000/main.js").await;
    assert_eq!((old.status, old.headers["cache-control"].to_str().unwrap()), (200, "no-cache"));
    assert_eq!(server.get("/page/0000000000000000/none.js").await.status, 404);
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("script-src 'self';") && policy.contains("connect-src 'self'"), "{policy}");
    assert!(policy.contains("img-src 'self' data: blob:"), "{policy}");
    assert!(policy.contains("require-trusted-types-for 'script'") && !policy.contains("unsafe"), "{policy}");
    assert!(policy.ends_with("frame-ancestors 'none'"), "{policy}");
    let document: Value = server.get("/openapi.json").await.json;
    assert_eq!(document["components"]["securitySchemes"]["token"]["scheme"], "bearer");
}

#[tokio::test]
async fn a_link_shows_one_picture_without_a_token() {
    let server = Server::start(&["--api-token", TOKEN]).await;
    let authorization = format!("Bearer {TOKEN}");
    let with_token = |path: &str| server.request("GET", path).header("authorization", &authorization);
    for id in ["first", "a/b ü"] {
        let body = json!({ "id": id, "input": { "prompt": "a" } });
        let headers = [("authorization", authorization.as_str())];
        assert_eq!(server.json("POST", "/predictions", &headers, &body).await.json["status"], "succeeded");
    }
    for path in ["first", "a%2Fb%20%C3%BC"] {
        let link = server.send(with_token(&format!("/predictions/{path}/link"))).await;
        let (key, url) = (link.json["key"].as_str().unwrap(), link.json["url"].as_str().unwrap());
        assert_eq!(url, format!("{}/view/{path}?key={key}", server.url));
        let page = server.get(&url[server.url.len()..]).await;
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        assert!(page.status == 200 && policy.ends_with("frame-ancestors *"), "{policy}");
        let picture = server.get(&format!("/view/{path}/picture?key={key}")).await;
        assert_eq!((picture.status, &picture.headers["content-type"]), (200, &"image/png".parse().unwrap()));
        for wrong in ["", "?key=", "?key=AAAAAAAAAAAAAAAAAAAAAA", &format!("?key={key}A"), "?key=%FF"] {
            assert_eq!(server.get(&format!("/view/{path}/picture{wrong}")).await.status, 404, "{wrong}");
        }
        assert_eq!(server.get(&format!("/view/other/picture?key={key}")).await.status, 404, "a key is for one picture");
    }
    // Whoever may see one picture sees no other that has its id later.
    let key =
        async || server.send(with_token("/predictions/first/link")).await.json["key"].as_str().unwrap().to_owned();
    let shown = async |key: &str| server.get(&format!("/view/first/picture?key={key}")).await.status;
    let before = key().await;
    assert_eq!(shown(&before).await, 200);
    let body = json!({ "id": "first", "input": { "prompt": "b" } });
    let headers = [("authorization", authorization.as_str())];
    assert_eq!(server.json("POST", "/predictions", &headers, &body).await.json["status"], "succeeded");
    assert_eq!((shown(&before).await, shown(&key().await).await), (404, 200));
    assert_eq!(server.get("/predictions/first/link").await.status, 401);
    assert_eq!(server.send(with_token("/predictions/none/link")).await.status, 404);
    let key = server.send(with_token("/predictions/first/link")).await.json["key"].as_str().unwrap().to_owned();
    let gone = server.request("DELETE", "/predictions/first").header("authorization", &authorization);
    assert_eq!(server.send(gone).await.status, 204);
    assert_eq!(server.get(&format!("/view/first/picture?key={key}")).await.status, 404);
}

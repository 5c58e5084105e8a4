//! Tokens with names, and what is counted for each.

use serde_json::{Value, json};
use tests::{Answer, Server};

async fn predict(server: &Server, token: &str, prompt: &str, count: u32) -> Answer {
    let input = json!({"prompt": prompt, "num_inference_steps": 2, "width": 512, "num_outputs": count});
    let authorization = format!("Bearer {token}");
    server.json("POST", "/predictions", &[("authorization", &authorization)], &json!({"input": input})).await
}

async fn usage(server: &Server, token: &str) -> Value {
    let request = server.request("GET", "/usage").header("authorization", format!("Bearer {token}"));
    server.send(request).await.json["usage"].clone()
}

/// Name, predictions, successful ones and pixels.
fn counted(usage: &Value) -> Vec<(Option<&str>, u64, u64, u64)> {
    let number = |one: &Value, key: &str| one[key].as_f64().unwrap();
    usage
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            assert!(number(one, "seconds") > 0.0, "{one}");
            let (predictions, succeeded) = (number(one, "predictions") as u64, number(one, "succeeded") as u64);
            let pixels = (number(one, "megapixels") * 1e6).round() as u64;
            (one["name"].as_str(), predictions, succeeded, pixels)
        })
        .collect()
}

#[tokio::test]
async fn names_are_counted_over_restarts_and_retention() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokens");
    std::fs::write(&file, "# comment\nalice secret-a1\nbob\tsecret-b\nalice   secret-a2\nsecret-alone\n").unwrap();
    let flags = ["--api-token-file", file.to_str().unwrap(), "--api-token", "carol secret-c,secret-plain"];
    let mut server = Server::launch_in(dir.path(), &flags, &[]);
    server.until_health(&["READY"]).await;
    assert_eq!(usage(&server, "secret-b").await, json!([]));
    for (token, prompt, count) in
        [("secret-a1", "a", 1), ("secret-a2", "a", 3), ("secret-a1", "fail", 1), ("secret-alone", "a", 1)]
    {
        assert_eq!(predict(&server, token, prompt, count).await.status, 200);
    }
    for token in ["secret-b", "secret-c", "secret-plain"] {
        assert_eq!(predict(&server, token, "a", 1).await.status, 200);
    }
    for wrong in ["alice", "alice secret-a1", "bob\tsecret-b", "secret-x"] {
        assert_eq!(predict(&server, wrong, "a", 1).await.status, 401, "{wrong}");
    }
    let pixels = 512 * 512;
    let expected = [
        (None, 2, 2, 2 * pixels),
        (Some("alice"), 3, 2, 4 * pixels),
        (Some("bob"), 1, 1, pixels),
        (Some("carol"), 1, 1, pixels),
    ];
    let now = usage(&server, "secret-b").await;
    assert_eq!(counted(&now), expected);
    assert_eq!(server.get("/usage").await.status, 401, "it needs a token");
    server.kill();
    let flags = [&flags[..], &["--keep-count", "0"]].concat();
    let server = Server::launch_in(dir.path(), &flags, &[]);
    server.until_health(&["READY"]).await;
    let list = async || {
        let request = server.request("GET", "/predictions").header("authorization", "Bearer secret-b");
        server.send(request).await.json["results"].as_array().unwrap().len()
    };
    while list().await > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(usage(&server, "secret-b").await, now);
    let metric = |name: &str| format!("syncdiffusion_usage_predictions_total{{name=\"{name}\"}}");
    assert_eq!(server.metric(&metric("alice")).await, 3.0);
    assert_eq!(server.metric(&metric("")).await, 2.0);
    assert_eq!(server.metric("syncdiffusion_usage_megapixels_total{name=\"alice\"}").await, 1.0);
    let shown = format!("{now}{}{}", server.get("/metrics").await.text, server.log());
    assert!(!shown.contains("secret-"), "a name shows no token");
}

#[tokio::test]
async fn names_that_cannot_be_are_refused() {
    for tokens in ["a/b secret-1", "ü secret-1", "name se cret-1", &format!("{} secret-1", "n".repeat(65))] {
        let output = std::process::Command::new(tests::binary())
            .args(["serve", "--port", "0", "--data-dir", "none", "--api-token", tokens])
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains("write `TOKEN` or `NAME TOKEN`"), "{said}");
        assert!(!said.contains("secret-1"), "{said}");
    }
}

#[tokio::test]
async fn names_share_the_workers() {
    let dir = tempfile::tempdir().unwrap();
    let gate = dir.path().join("go");
    let server = Server::start(&["--api-token", "many secret-m,few secret-f"]).await;
    let submit = async |token: &str, id: &str, prompt: &str| {
        let body = json!({"id": id, "input": {"prompt": prompt, "num_inference_steps": 2, "width": 512}});
        let headers = [("authorization", &*format!("Bearer {token}")), ("prefer", "respond-async")];
        assert_eq!(server.json("POST", "/predictions", &headers, &body).await.status, 202);
    };
    submit("secret-m", "first", &format!("until={}", gate.display())).await;
    for n in 0..4 {
        submit("secret-m", &format!("many{n}"), "a").await;
    }
    submit("secret-f", "few", "a").await;
    std::fs::write(&gate, "").unwrap();
    let started = async |id: &str| loop {
        let request = server.request("GET", &format!("/predictions/{id}")).header("authorization", "Bearer secret-f");
        let prediction = server.send(request).await.json;
        if prediction["status"] == "succeeded" {
            return prediction["started_at"].as_str().unwrap().to_owned();
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    let (few, last) = (started("few").await, started("many3").await);
    assert!(few < last, "{few} {last}");
}

//! Async requests, repeated requests, and concurrent ones.

use serde_json::{Value, json};
use tests::{Answer, Server};

use crate::contract::assert_whole;

#[tokio::test]
async fn an_async_prediction_is_answered_at_once() {
    let server = Server::start(&[]).await;
    let body = json!({"id": "as-1", "input": {"prompt": "step=20", "num_inference_steps": 10}});
    let answer = server.predict_async(&body).await;
    assert_eq!((answer.status, &answer.json["status"], &answer.json["id"]), (202, &json!("starting"), &json!("as-1")));
    assert_whole(&answer.json);
    let running = server.until("/predictions/as-1", |is| is["metrics"]["step"].as_u64() > Some(2)).await;
    assert_eq!(running["status"], "processing");
    assert!(running["metrics"]["seconds_left"].as_f64().unwrap() > 0.0);
    assert_whole(&running);
    assert_eq!(server.ended("as-1").await["status"], "succeeded");
}

#[tokio::test]
async fn prefer_is_parsed_as_in_the_rfc() {
    let server = Server::start(&[]).await;
    let body = json!({"input": {"prompt": "step=30", "num_inference_steps": 10}});
    for prefer in ["respond-async", "Respond-Async", "return=minimal, respond-async;x=1", "wait=0"] {
        let answer = server.json("POST", "/predictions", &[("prefer", prefer)], &body).await;
        assert_eq!(answer.status, 202, "{prefer}");
        server.ended(answer.json["id"].as_str().unwrap()).await;
    }
    for prefer in ["wait=20", "respond-async, wait=20", "wait"] {
        let answer = server.json("POST", "/predictions", &[("prefer", prefer)], &body).await;
        assert_eq!((answer.status, &answer.json["status"]), (200, &json!("succeeded")), "{prefer}");
    }
}

#[tokio::test]
async fn a_repeated_put_runs_once() {
    let server = Server::start(&[]).await;
    let slow = json!({"input": {"prompt": "step=20", "num_inference_steps": 10}});
    let first = server.json("PUT", "/predictions/p%2F1", &[("prefer", "respond-async")], &slow).await;
    assert_eq!((first.status, &first.json["id"]), (202, &json!("p/1")));
    let again = server.json("PUT", "/predictions/p%2F1", &[], &json!({"input": {"prompt": 5}})).await;
    assert_eq!((again.status, &again.json["input"]["prompt"]), (202, &json!("step=20")));
    let ended = server.ended("p%2F1").await;
    let later = server.json("PUT", "/predictions/p%2F1", &[], &slow).await;
    assert_eq!((later.status, later.json), (200, ended));

    let other = server.json("PUT", "/predictions/p-2", &[], &json!({"id": "zzz", "input": {"prompt": "x"}})).await;
    assert_eq!(
        (other.status, other.json),
        (
            422,
            json!({"detail": [{"loc": ["body", "id"], "msg": "prediction ID must match the ID supplied in the URL", "type": "value_error"}]})
        )
    );
}

#[tokio::test]
async fn nobody_is_told_of_what_is_not_stored() {
    let server = Server::start(&["--queue-size", "1"]).await;
    let endless = json!({"input": {"prompt": "step=60000"}});
    for _ in 0..2 {
        assert_eq!(server.predict_async(&endless).await.status, 202);
    }
    for n in 0..50 {
        let (path, asks) = (format!("/predictions/q-{n}"), [("prefer", "respond-async")]);
        let put = || server.json("PUT", &path, &asks, &endless);
        let stream = format!("{path}/stream");
        let (a, b, c, shown, streamed) = tokio::join!(put(), put(), put(), server.get(&path), server.get(&stream));
        let puts = [a, b, c].map(|answer| answer.status);
        assert!(puts.contains(&429) && puts.iter().all(|status| [429, 503].contains(status)), "{puts:?}");
        assert_eq!((shown.status, streamed.status), (404, 404), "{} {}", shown.text, streamed.text);
    }
}

#[tokio::test]
async fn concurrent_puts_of_an_id_give_one_prediction() {
    let server = Server::start(&["--queue-size", "0"]).await;
    for round in 0..20 {
        let path = format!("/predictions/same-{round}");
        let body = json!({"input": {"prompt": "a", "num_inference_steps": 2}});
        let put = || server.json("PUT", &path, &[], &body);
        let (a, b, c, d) = tokio::join!(put(), put(), put(), put());
        let answers = [a, b, c, d];
        assert!(answers.iter().all(|answer| [200, 202].contains(&answer.status)), "{answers:#?}");
        let ended = server.ended(&format!("same-{round}")).await;
        assert!(answers.iter().all(|answer| answer.json["created_at"] == ended["created_at"]), "{answers:#?}");
    }
}

#[tokio::test]
async fn of_concurrent_puts_of_several_ids_one_gets_the_only_slot() {
    let server = Server::start(&["--queue-size", "0"]).await;
    for round in 0..20 {
        let body = json!({"input": {"prompt": "step=5", "num_inference_steps": 4}});
        let put = |name: &str| {
            let path = format!("/predictions/{name}-{round}");
            let (server, body) = (&server, &body);
            async move { server.json("PUT", &path, &[], body).await.status }
        };
        let statuses: [u16; 3] = tokio::join!(put("a"), put("b"), put("c")).into();
        assert_eq!(statuses.iter().filter(|&&status| status == 200).count(), 1, "{statuses:?}");
        assert_eq!(statuses.iter().filter(|&&status| status == 409).count(), 2, "{statuses:?}");
    }
}

#[tokio::test]
async fn a_post_may_reuse_the_id_of_an_ended_prediction() {
    let server = Server::start(&[]).await;
    let body = json!({"id": "x", "input": {"prompt": "step=10", "num_inference_steps": 20}});
    assert_eq!(server.predict_async(&body).await.status, 202);
    let refused = server.predict(&body).await;
    assert_eq!((refused.status, &refused.json["status"]), (409, &json!("failed")));
    assert!(refused.json["error"].as_str().unwrap().contains("`x` exists"));
    let first = server.ended("x").await;
    let second = server.predict(&body).await;
    assert_eq!(second.status, 200);
    assert_ne!(first["created_at"], second.json["created_at"]);
}

#[tokio::test]
async fn ids_are_never_paths() {
    let server = Server::start(&[]).await;
    for id in ["../../x", "a/b c", "ü🏔", "%2e%2e", "a\"'\\<>"] {
        let answer = server.predict(&json!({"id": id, "input": {"prompt": "a", "num_inference_steps": 1}})).await;
        assert_eq!((answer.status, &answer.json["id"]), (200, &json!(id)));
        let path = answer.json["urls"]["get"].as_str().unwrap().strip_prefix(&server.url).unwrap();
        assert_eq!(server.get(path).await.json["id"], id);
    }
}

#[tokio::test]
async fn an_id_that_no_url_can_name_is_refused() {
    let server = Server::start(&[]).await;
    for id in [".", ".."] {
        let refused = server.predict(&json!({"id": id, "input": {"prompt": "a", "num_inference_steps": 1}})).await;
        assert_eq!((refused.status, &refused.json["detail"][0]["loc"]), (422, &json!(["body", "id"])), "{id}");
        assert!(refused.text.contains(&format!("`{id}` cannot be an id")), "{}", refused.text);
    }
    for id in ["...", ".a", "a..", "./."] {
        let made = server.predict(&json!({"id": id, "input": {"prompt": "a", "num_inference_steps": 1}})).await;
        let path = made.json["urls"]["get"].as_str().unwrap().strip_prefix(&server.url).unwrap();
        assert_eq!((made.status, &server.get(path).await.json["id"]), (200, &json!(id)), "{id}");
    }
}

#[tokio::test]
async fn predictions_are_listed_and_deleted() {
    let server = Server::start(&[]).await;
    for n in 0..5 {
        let prompt = if n == 2 { "fail" } else { "a" };
        server.predict(&json!({"id": format!("l{n}"), "input": {"prompt": prompt, "num_inference_steps": 1}})).await;
    }
    let ids = |page: &serde_json::Value| -> Vec<String> {
        page["results"].as_array().unwrap().iter().map(|is| is["id"].as_str().unwrap().to_owned()).collect()
    };
    let page = server.get("/predictions?limit=2").await.json;
    assert_eq!((ids(&page), &page["previous"]), (vec!["l4".to_owned(), "l3".to_owned()], &json!(null)));
    assert_whole(&page["results"][0]);
    assert_eq!(page["results"][0]["output"], format!("{}/predictions/l4/output", server.url));
    let path = |link: &serde_json::Value| link.as_str().unwrap().strip_prefix(&server.url).unwrap().to_owned();
    let second = server.get(&path(&page["next"])).await.json;
    assert_eq!(ids(&second), ["l2", "l1"]);
    let third = server.get(&path(&second["next"])).await.json;
    assert_eq!((ids(&third), &third["next"]), (vec!["l0".to_owned()], &json!(null)));
    assert_eq!(ids(&server.get(&path(&third["previous"])).await.json), ["l2", "l1"]);
    assert_eq!(ids(&server.get("/predictions?status=failed").await.json), ["l2"]);
    for bad in ["limit=0", "limit=x", "status=nope", "cursor=x", "cursor=b99999999999999999999"] {
        assert!([400, 422].contains(&server.get(&format!("/predictions?{bad}")).await.status), "{bad}");
    }

    assert_eq!(server.send(server.request("DELETE", "/predictions/l4")).await.status, 204);
    assert_eq!(server.send(server.request("DELETE", "/predictions/l4")).await.status, 404);
    assert_eq!(server.get("/predictions/l4").await.status, 404);
    assert_eq!(server.get("/predictions/l4/output").await.status, 404);
    server.predict_async(&json!({"id": "r", "input": {"prompt": "step=50"}})).await;
    assert_eq!(server.send(server.request("DELETE", "/predictions/r")).await.status, 409);
}

#[tokio::test]
async fn a_repeated_post_with_a_key_runs_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::launch_in(dir.path(), &[], &[]);
    server.until_health(&["READY"]).await;
    let gate = dir.path().join("open");
    let body = json!({"input": {"prompt": format!("until={}", gate.display()), "num_inference_steps": 2}});
    let key = ("idempotency-key", "order 7");
    let started = server.json("POST", "/predictions", &[key, ("prefer", "respond-async")], &body).await;
    let again = server.json("POST", "/predictions", &[key, ("prefer", "respond-async")], &body).await;
    assert_eq!((started.status, again.status, &again.json["id"]), (202, 202, &started.json["id"]));
    let headers = [key];
    let (waited, ()) = tokio::join!(server.json("POST", "/predictions", &headers, &body), async {
        std::fs::write(&gate, "").unwrap();
    });
    assert_eq!((waited.status, &waited.json["id"]), (200, &started.json["id"]), "it waits as the first would");
    assert_eq!(waited.json["status"], "succeeded");
    let other = server.json("POST", "/predictions", &[key], &json!({"input": {"prompt": "b"}})).await;
    assert_eq!(other.status, 422);
    assert!(other.json["detail"].as_str().unwrap().contains("`Idempotency-Key`"), "{}", other.text);
    server.kill();
    let server = Server::launch_in(dir.path(), &[], &[]);
    server.until_health(&["READY"]).await;
    let later = server.json("POST", "/predictions", &[key], &body).await;
    assert_eq!((later.status, later.json), (200, waited.json), "the store remembers it");

    // Also while the first one, with an id of its own, is known in memory only by that.
    let named = json!({"id": "n", "input": {"prompt": "until=/nowhere"}});
    let key = [("idempotency-key", "other"), ("prefer", "respond-async")];
    for _ in 0..2 {
        let answer = server.json("POST", "/predictions", &key, &named).await;
        assert_eq!((answer.status, &answer.json["id"]), (202, &json!("n")));
    }
    assert_eq!(server.json("POST", "/predictions", &[("prefer", "respond-async")], &named).await.status, 409);
}

/// Asks for a picture with a key; the text of the answer, and the picture.
async fn keyed(server: &Server, path: &str, key: &str, body: &Value) -> (Answer, Value) {
    let answer = server.json("POST", path, &[("idempotency-key", key)], body).await;
    let json = &answer.json;
    let picture = if path.starts_with("/v1") { &json["data"][0]["b64_json"] } else { &json["images"][0] }.clone();
    (answer, picture)
}

#[tokio::test]
async fn keys_of_other_apis_survive_a_restart() {
    for (path, refused) in [("/v1/images/generations", 400), ("/sdapi/v1/txt2img", 422)] {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Server::launch_in(dir.path(), &[], &[]);
        server.until_health(&["READY"]).await;
        let gate = dir.path().join("open");
        let prompt = format!("until={}", gate.display());
        let body = json!({"prompt": prompt, "width": 512, "height": 512, "num_inference_steps": 2});
        let post = server.request("POST", path).header("content-type", "application/json");
        let sending = tokio::spawn(post.header("idempotency-key", "a").body(body.to_string()).send());
        let list = server.until("/predictions", |list| list["results"][0]["status"] == "processing").await;
        sending.abort();
        server.kill();
        let server = Server::launch_in(dir.path(), &[], &[]);
        server.until_health(&["READY", "BUSY"]).await;
        let ((waited, picture), ()) = tokio::join!(keyed(&server, path, "a", &body), async {
            server.logged("a request that was repeated waits for its prediction").await;
            std::fs::write(&gate, "").unwrap();
        });
        assert!(waited.status == 200 && picture.is_string(), "{}", waited.text);
        assert_eq!(keyed(&server, path, "a", &body).await.1, picture, "also when it has ended");
        let other = json!({"prompt": "b", "num_inference_steps": 1});
        let (answer, _) = keyed(&server, path, "a", &other).await;
        assert_eq!(answer.status, refused, "{}", answer.text);
        assert!(answer.text.contains("`Idempotency-Key`"), "{}", answer.text);
        let all = server.get("/predictions").await.json["results"].clone();
        assert_eq!((all.as_array().unwrap().len(), &all[0]["id"]), (1, &list["results"][0]["id"]), "it was drawn once");
    }
}

#[tokio::test]
async fn a_stream_with_a_key_can_be_read_again() {
    let (server, path) = (Server::start(&[]).await, "/v1/images/generations");
    let dir = tempfile::tempdir().unwrap();
    let gate = dir.path().join("open");
    let body = json!({"prompt": format!("until={}", gate.display()), "stream": true, "num_inference_steps": 2});
    let post = server.request("POST", path).header("content-type", "application/json");
    let sending = tokio::spawn(post.header("idempotency-key", "s").body(body.to_string()).send());
    let list = server.until("/predictions", |list| list["results"][0]["status"] == "processing").await;
    sending.abort();
    let ((again, _), ()) = tokio::join!(keyed(&server, path, "s", &body), async {
        std::fs::write(&gate, "").unwrap();
    });
    let id = list["results"][0]["id"].as_str().unwrap();
    let later = keyed(&server, path, "s", &body).await.0;
    for answer in [again, later] {
        assert_eq!((answer.status, answer.text.matches("event: image_generation.completed").count()), (200, 1));
        assert!(answer.text.contains(&format!("\"prediction_id\":\"{id}\"")), "{}", answer.text);
    }
    let failing = json!({"prompt": "fail", "stream": true, "num_inference_steps": 2});
    assert!(keyed(&server, path, "f", &failing).await.0.text.contains("event: error"));
    assert_eq!(keyed(&server, path, "f", &failing).await.0.status, 500, "it is known before the stream begins");
}

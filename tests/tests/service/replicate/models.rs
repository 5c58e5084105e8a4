//! The model, and lists.

use serde_json::{Value, json};
use tests::Server;

use super::assert_prediction;

#[tokio::test]
async fn lists_link_to_their_neighbours() {
    let server = Server::start(&["--public-url", "https://panorama.example/api"]).await;
    let mut created = Vec::new();
    for n in 0..103 {
        let answer =
            server.predict(&json!({"id": format!("l{n}"), "input": {"prompt": "a", "num_inference_steps": 1}})).await;
        created.push(answer.json["created_at"].as_str().unwrap().to_owned());
    }
    let ids = |page: &Value| -> Vec<String> {
        page["results"].as_array().unwrap().iter().map(|is| is["id"].as_str().unwrap().to_owned()).collect()
    };
    let follow = |link: &Value| {
        let path = link.as_str().unwrap().strip_prefix("https://panorama.example/api").unwrap().to_owned();
        let server = &server;
        async move { server.get(&path).await.json }
    };
    let first = server.get("/v1/predictions").await.json;
    assert_eq!((ids(&first).len(), &first["previous"], ids(&first)[0].as_str()), (100, &json!(null), "l102"));
    first["results"].as_array().unwrap().iter().for_each(assert_prediction);
    let second = follow(&first["next"]).await;
    assert_eq!(
        (ids(&second), &second["next"]),
        (vec!["l2".to_owned(), "l1".to_owned(), "l0".to_owned()], &json!(null))
    );
    assert_eq!(ids(&follow(&second["previous"]).await), ids(&first));
    // Pictures are URLs that need no token.
    let output = first["results"][0]["output"].as_str().unwrap().strip_prefix("https://panorama.example/api").unwrap();
    let picture = server.send(server.request("GET", output)).await;
    assert_eq!((picture.status, &picture.headers["content-type"]), (200, &"image/png".parse().unwrap()));

    let at = |n: usize| created[n].replace('+', "%2B");
    let between = server.get(&format!("/v1/predictions?created_after={}&created_before={}", at(5), at(8))).await.json;
    assert_eq!(
        (ids(&between), &between["next"]),
        (vec!["l7".to_owned(), "l6".to_owned(), "l5".to_owned()], &json!(null))
    );
    let before = server.get(&format!("/v1/predictions?created_before={}", at(101))).await.json;
    assert_eq!((ids(&before).len(), ids(&before)[0].as_str()), (100, "l100"));
    assert_eq!(ids(&follow(&before["next"]).await), ["l0"]);
    assert!(ids(&server.get("/v1/predictions?created_after=2100-01-01T00:00:00Z").await.json).is_empty());
    for wrong in ["cursor=x", "created_after=soon"] {
        assert!([400, 422].contains(&server.get(&format!("/v1/predictions?{wrong}")).await.status), "{wrong}");
    }
}

#[tokio::test]
async fn the_model_is_described() {
    let server = Server::start(&["--model-name", "acme/pano"]).await;
    let path = "/v1/models/acme/pano";
    let model = server.get(path).await.json;
    assert_eq!(
        (&model["owner"], &model["name"], &model["visibility"]),
        (&json!("acme"), &json!("pano"), &json!("public"))
    );
    assert!(model["run_count"].is_u64() && model["url"].is_string(), "{model}");
    let version = &model["latest_version"];
    assert!(version["created_at"].is_string() && version["cog_version"].is_string());
    let output = &version["openapi_schema"]["components"]["schemas"]["Output"];
    assert_eq!((&output["type"], &output["format"]), (&json!("string"), &json!("uri")));
    let id = version["id"].as_str().unwrap();
    assert_eq!(server.get(&format!("{path}/versions/{id}")).await.json, *version);
    assert_eq!(server.get(&format!("{path}/versions")).await.json["results"], json!([version]));
    let both = server.get("/v1/models").await.json;
    assert_eq!((&both["results"], &both["object"], &both["next"]), (&json!([model]), &json!("list"), &json!(null)));
    for card in both["data"].as_array().unwrap() {
        assert!(
            card["id"].is_string()
                && card["object"] == "model"
                && card["created"].is_u64()
                && card["owned_by"].is_string()
        );
    }
    for (query, found) in [("panorama", 1), ("\"panorama\"", 1), ("kittens", 0)] {
        let page =
            server.send(server.request("QUERY", "/v1/models").header("content-type", "text/plain").body(query)).await;
        assert_eq!(page.json["results"].as_array().unwrap().len(), found, "{query}: {}", page.text);
    }
    let long = "panorama ".repeat(113);
    let escaped: Vec<String> = long.chars().map(|letter| format!("\\u{:04x}", u32::from(letter))).collect();
    for (query, status) in [
        (long.clone(), 200),
        (format!("\u{feff}\"{}\"", escaped.concat()), 200),
        (long.repeat(2), 422),
        (format!("{:?}", long.repeat(2)), 422),
        ("panorama ".repeat(1 << 20), 422),
    ] {
        let length = query.len();
        let page =
            server.send(server.request("QUERY", "/v1/models").header("content-type", "text/plain").body(query)).await;
        assert_eq!(page.status, status, "{length}: {}", page.text);
        assert_eq!(page.json["results"].as_array().map(Vec::len), (status == 200).then_some(1), "{}", page.text);
        assert_eq!(page.text.contains("more than the maximum of 1024"), status == 422, "{}", page.text);
    }
    assert_eq!(server.get("/v1/search?query=panorama").await.json["models"][0]["model"], model);
    assert_eq!(server.get("/v1/search?query=kittens").await.json["models"], json!([]));
    for list in ["/v1/collections", "/v1/deployments", "/v1/trainings", "/v1/models/acme/pano/examples"] {
        assert_eq!(server.get(list).await.json, json!({"next": null, "previous": null, "results": []}), "{list}");
    }
    assert_eq!(server.get("/v1/hardware").await.json, json!([{"sku": "cpu", "name": "CPU"}]));
    assert_eq!(server.get("/v1/account").await.json["username"], "acme");
    assert!(server.get("/v1/models/acme/pano/readme").await.text.starts_with("# acme/pano"));
}

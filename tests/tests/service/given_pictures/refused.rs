//! Pictures that cannot be used, and inputs that do not go together with them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tests::Server;

use super::{Host, JPEG, QUARTERS, body, file, uri};

#[tokio::test]
async fn what_cannot_be_used_is_refused_by_its_field_and_leaves_nothing() {
    let (server, host) = (Server::start(&[]).await, Host::start().await);
    let url = |name: &str| json!(format!("{}/{name}", host.url));
    let bomb = {
        // A header that claims 30,000 pixels each way, without a checksum that fits.
        let mut bytes = JPEG.to_vec();
        let frame = bytes.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        bytes[frame + 5..frame + 9].copy_from_slice(&[0x75, 0x30, 0x75, 0x30]);
        bytes
    };
    for (picture, words) in [
        (url("nothing.png"), "404"),
        (url("page.png"), "HTML"),
        (url("half.png"), "damaged, or ends too early"),
        (json!("http://127.0.0.1:1/x.png"), "cannot be fetched"),
        (json!(uri(b"GIF89a")), "a GIF"),
        (json!(uri(b"")), "no bytes"),
        (json!(uri(&JPEG[..500])), "ends too early"),
        (json!(uri(&bomb)), "30000x30000"),
        (json!("data:image/png;base64,not base64!"), "not base64"),
        (json!("data:text/plain,hello"), "not in base64"),
        (json!("C:\\photo.png"), "not the URL of a picture"),
        (json!("ftp://example.com/x.png"), "not the URL of a picture"),
        (json!("http://user:hush@example.com/x.png"), "password"),
        (json!(5), "is not of type \"string\""),
    ] {
        let refused = server.predict(&body(&json!({ "anchor_image": picture }))).await;
        assert_eq!(refused.status, 422, "{picture}: {}", refused.text);
        let detail = &refused.json["detail"];
        assert_eq!(detail[0]["loc"], json!(["body", "input", "anchor_image"]), "{}", refused.text);
        assert!(detail[0]["msg"].as_str().unwrap().contains(words), "{words}: {}", refused.text);
        assert!(!refused.text.contains("hush") && detail.as_array().unwrap().len() == 1, "{}", refused.text);
    }
    // Both pictures are told of at once.
    let both = server.predict(&body(&json!({"image": uri(b"BM"), "anchor_image": url("nothing.png")}))).await;
    assert_eq!(both.json["detail"].as_array().map(Vec::len), Some(2), "{}", both.text);
    assert_eq!(server.get("/predictions").await.json["results"], json!([]));
    let made = server.predict(&body(&json!({"image": url("lie.gif")}))).await;
    assert_eq!(made.json["status"], "succeeded", "{}", made.text);
    assert_eq!(file(&server, &made.json["input"]["image"]).await.1, "image/jpeg");

    let guarded = Server::start(&["--allow-private-urls=false"]).await;
    let before = host.count();
    for private in [format!("{}/picture.png", host.url), "http://[::ffff:10.0.0.1]/hush".to_owned()] {
        let refused = guarded.predict(&body(&json!({ "image": private }))).await;
        assert!(refused.status == 422 && refused.text.contains("--allow-private-urls"), "{}", refused.text);
    }
    assert_eq!(host.count(), before);
}

#[tokio::test]
async fn forbidden_combinations_name_both_fields() {
    let server = Server::start(&[]).await;
    let picture = uri(QUARTERS);
    for (input, field, words) in [
        (json!({"strength": 0.5}), "strength", &["`image`", "`strength`"][..]),
        (json!({"image_left": 0}), "image_left", &["`image`", "`image_left`"]),
        (json!({"prompts": ["one"]}), "prompts", &["`prompts`", "`prompt`"]),
        (json!({"prompts": vec!["x"; 11]}), "prompts", &["more than 10 texts"]),
        (json!({"prompts": ["a", ""]}), "prompts", &["text 2 of `prompts` is empty"]),
        (json!({"image": picture, "image_left": 1024}), "image_left", &["`width` of 1024"]),
        (json!({"image": picture, "image_left": 300}), "image_left", &["`image_left` is 300", "`image`", "256"]),
        (json!({"image": picture, "width": 640}), "image", &["`width` of at least 768", "`height`"]),
        (json!({"image": picture, "width": 768}), "image", &["`width`", "`strength`"]),
    ] {
        let refused = server.predict(&body(&input)).await;
        assert_eq!(refused.status, 422, "{input}: {}", refused.text);
        assert_eq!(refused.json["detail"][0]["loc"][2], field, "{}", refused.text);
        let said = refused.json["detail"][0]["msg"].as_str().unwrap();
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }
    assert_eq!(server.get("/predictions").await.json["results"], json!([]));
    assert_eq!(
        server
            .predict(&body(&json!({"image": picture, "width": 768, "strength": 0.5, "num_inference_steps": 2})))
            .await
            .status,
        200
    );
    assert_eq!(server.predict(&body(&json!({"anchor_image": picture, "prompts": ["b", "c"]}))).await.status, 200);
}

/// That a model has no encoder is a 422 at the request, by all doors and in the words of each.
#[tokio::test]
async fn a_model_without_an_encoder_refuses_pictures() {
    let server = Server::launch(&[], &[("STAND_IN_WITHOUT_ENCODER", "1")]);
    server.until_health(&["READY"]).await;
    let says = "cannot be used with this model";
    for more in [json!({"image": uri(QUARTERS)}), json!({"image": uri(QUARTERS), "strength": 0.5})] {
        let answer = server.predict(&body(&more)).await;
        assert_eq!((answer.status, &answer.json["detail"][0]["loc"][2]), (422, &json!("image")), "{}", answer.text);
        assert!(answer.text.contains(says), "{}", answer.text);
    }
    let edit = json!({"prompt": "a", "images": [uri(QUARTERS)]});
    let answer = server.json("POST", "/v1/images/edits", &[], &edit).await;
    assert_eq!((answer.status, &answer.json["error"]["param"]), (400, &json!("images")), "{}", answer.text);
    let init = json!({"prompt": "a", "init_images": [STANDARD.encode(QUARTERS)]});
    let answer = server.json("POST", "/sdapi/v1/img2img", &[], &init).await;
    assert_eq!(answer.status, 422, "{}", answer.text);
    assert!(answer.json["detail"].as_str().unwrap().starts_with(&format!("init_images: {says}")), "{}", answer.text);
    for fine in [
        json!({}),
        json!({"anchor_image": uri(QUARTERS)}),
        // Nothing of it is kept, so it is not encoded.
        json!({"image": uri(QUARTERS), "strength": 1}),
    ] {
        assert_eq!(server.predict(&body(&fine)).await.json["status"], "succeeded", "{fine}");
    }
}

//! The API of AUTOMATIC1111's web UI, as its clients see it.

use std::io::Cursor;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tests::{Answer, Server};

const TXT2IMG: &str = "/sdapi/v1/txt2img";
const IMG2IMG: &str = "/sdapi/v1/img2img";
const PROGRESS: &str = "/sdapi/v1/progress";

/// Four quarters of 48x32 pixels in all.
const QUARTERS: &[u8] = include_bytes!("../../pictures/quarters.png");

/// Size and `parameters` of a PNG in base64.
fn png(text: &Value) -> ((u32, u32), String) {
    let bytes = STANDARD.decode(text.as_str().unwrap_or_else(|| panic!("{text}"))).unwrap();
    let reader = png::Decoder::new(Cursor::new(bytes)).read_info().unwrap();
    let info = reader.info();
    let mut texts = info.uncompressed_latin1_text.iter();
    let parameters = texts.find(|chunk| chunk.keyword == "parameters").map(|chunk| chunk.text.clone());
    (info.size(), parameters.unwrap_or_default())
}

/// Requests a path with some `Authorization`.
async fn ask(server: &Server, method: &str, path: &str, authorization: &str) -> Answer {
    server.json(method, path, &[("authorization", authorization)], &json!({})).await
}

fn basic(token: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("anybody:{token}")))
}

#[tokio::test]
async fn pictures_come_with_how_they_were_made() {
    let server = Server::start(&[]).await;
    let body = json!({"prompt": "a lake", "negative_prompt": "fog", "width": 1000, "height": 520, "steps": 3, "seed": 7,
        "cfg_scale": 4.5, "batch_size": 2, "n_iter": 1, "sampler_name": "UniPC", "scheduler": "automatic",
        "override_settings": {"sd_model_checkpoint": "x"}, "enable_hr": false});
    let answer = server.json("POST", TXT2IMG, &[], &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let images = answer.json["images"].as_array().unwrap();
    assert_eq!((images.len(), answer.json["parameters"]["steps"].as_u64()), (2, Some(3)));
    let info: Value = serde_json::from_str(answer.json["info"].as_str().expect("JSON as a text")).unwrap();
    assert_eq!((&info["seed"], &info["all_seeds"]), (&json!(7), &json!([7, 8])));
    assert_eq!((&info["width"], &info["height"], &info["cfg_scale"]), (&json!(1000), &json!(520), &json!(4.5)));
    assert_eq!((&info["sampler_name"], &info["steps"]), (&json!("UniPC"), &json!(3)));
    for (image, text) in images.iter().zip(info["infotexts"].as_array().unwrap()) {
        let (size, parameters) = png(image);
        assert_eq!((size, &json!(parameters)), ((1000, 520), text));
        assert!(parameters.starts_with("a lake\nNegative prompt: fog\nSteps: 3, Sampler: UniPC"), "{parameters}");
    }
    let marked = server.request("POST", TXT2IMG).body("\u{feff}{\"prompt\": \"a\", \"steps\": 1, \"seed\": \"42\"}");
    let marked = server.send(marked.header("content-type", "application/json")).await;
    assert_eq!((marked.status, &marked.json["parameters"]["seed"]), (200, &json!(42)), "{}", marked.text);
    for (wrong, words) in [
        (json!({"cfg_scale": 30}), "`cfg_scale`: 30 is greater than the maximum of 20"),
        (json!({"steps": 500}), "`steps`: 500 is greater"),
        (json!({"seed": true}), "`seed`: true is not of type"),
    ] {
        let answer = server.json("POST", TXT2IMG, &[], &wrong).await;
        assert_eq!(answer.status, 422, "{wrong}: {}", answer.text);
        assert!(answer.json["detail"].as_str().unwrap().contains(words), "{}", answer.text);
    }
    let any = server.json("POST", TXT2IMG, &[], &json!({"prompt": "a", "seed": -1, "steps": 1})).await.json;
    assert_eq!(png(&any["images"][0]).0, (2048, 512), "the panorama unless a size is given");
}

/// What a program sends for a picture that it has.
fn img2img(more: &Value) -> Value {
    // As SillyTavern, Krita's and Blender's plugins and others write it.
    let mut body = json!({"prompt": "a lake", "negative_prompt": "fog", "steps": 4, "cfg_scale": 7, "width": 1000,
        "height": 520, "seed": 5, "sampler_name": "DPM++ 2M", "sampler_index": "DPM++ 2M", "batch_size": 1, "n_iter": 1,
        "init_images": [STANDARD.encode(QUARTERS)], "denoising_strength": 0.6, "resize_mode": 0, "mask": null,
        "inpainting_fill": 0, "inpaint_full_res": true, "include_init_images": false, "override_settings": {},
        "alwayson_scripts": {"controlnet": {"args": []}}, "script_name": null, "image_cfg_scale": 1.5});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn a_picture_is_drawn_again() {
    let server = Server::start(&[]).await;
    let uri = format!("data:image/png;base64,{}", STANDARD.encode(QUARTERS));
    for (more, size, given, strength) in [
        // Stretched to what is kept of 1024x640, and cut to its shape.
        (json!({}), (1000, 520), "1024x640", 0.6),
        (json!({"resize_mode": 1, "denoising_strength": null}), (1000, 520), "1024x640", 0.75),
        (json!({"width": 1024, "height": 512, "init_images": [uri]}), (1024, 512), "1024x512", 0.6),
        // What is beside it is drawn.
        (json!({"width": 1024, "height": 512, "resize_mode": 2}), (1024, 512), "48x32", 0.6),
        (json!({"width": null, "height": null}), (2048, 512), "48x32", 0.6),
    ] {
        let answer = server.json("POST", IMG2IMG, &[], &img2img(&more)).await;
        assert_eq!(answer.status, 200, "{more}: {}", answer.text);
        let (shown, parameters) = png(&answer.json["images"][0]);
        let info: Value = serde_json::from_str(answer.json["info"].as_str().unwrap()).unwrap();
        assert_eq!((shown, &info["denoising_strength"]), (size, &json!(strength)), "{more}");
        assert_eq!((&info["infotexts"][0], &answer.json["parameters"]["width"]), (&json!(parameters), &json!(size.0)));
        let made = server.get("/predictions?limit=1").await.json["results"][0].clone();
        assert!(made["logs"].as_str().unwrap().contains(&format!("given image {given} ")), "{more}: {made}");
        assert_eq!(made["input"]["strength"], json!(strength));
    }
    for (more, words) in [
        (json!({"mask": STANDARD.encode(QUARTERS)}), "leave `mask` out"),
        (json!({"init_images": []}), "is missing"),
        (json!({"init_images": ["aGk="]}), "is not a PNG"),
        (json!({"init_images": ["?"]}), "not base64"),
        (json!({"width": 256}), "`512x520`"),
        (json!({"denoising_strength": 2}), "`denoising_strength`: 2 is greater than the maximum of 1"),
        // What is found out later, and what the message says of other fields, too.
        (json!({"width": 512, "height": 512, "resize_mode": 2}), "`init_images` is 768 pixels wide"),
        (
            json!({"width": 768, "height": 512, "resize_mode": 2, "denoising_strength": 0}),
            "or a `denoising_strength` of",
        ),
    ] {
        let answer = server.json("POST", IMG2IMG, &[], &img2img(&more)).await;
        assert_eq!(answer.status, 422, "{more}: {}", answer.text);
        assert!(answer.json["detail"].as_str().unwrap().contains(words), "{}", answer.text);
    }
    let body = img2img(&json!({"prompt": "until=/nowhere/at/all"}));
    let (answer, ()) = tokio::join!(server.json("POST", IMG2IMG, &[], &body), async {
        server.until(PROGRESS, |is| is["state"]["job"] == "img2img" && is["current_image"].is_string()).await;
        server.json("POST", "/sdapi/v1/interrupt", &[], &json!({})).await;
    });
    assert_eq!(answer.status, 500);
}

#[tokio::test]
async fn progress_is_shown_with_a_preview_and_stopped() {
    let server = Server::start(&[]).await;
    let idle = server.get(PROGRESS).await.json;
    assert_eq!((&idle["progress"], &idle["state"]["job_count"]), (&json!(0.0), &json!(0)));
    assert!(idle["current_image"].is_null());
    let body = json!({"prompt": "until=/nowhere/at/all", "steps": 4, "batch_size": 2});
    let (answer, ()) = tokio::join!(server.json("POST", TXT2IMG, &[], &body), async {
        let seen = server.until(PROGRESS, |is| is["current_image"].is_string()).await;
        let state = &seen["state"];
        assert_eq!(state["job_count"], 2, "{seen}");
        assert!(seen["progress"].as_f64().is_some_and(|share| share > 0.0 && share < 1.0), "{seen}");
        assert!(state["sampling_step"].as_u64() >= Some(1) && state["sampling_steps"].as_u64() >= Some(4), "{seen}");
        assert_eq!(png(&seen["current_image"]).0, (256, 64));
        let bare = server.get(&format!("{PROGRESS}?skip_current_image=true")).await.json;
        assert!(bare["current_image"].is_null() && bare["progress"] == seen["progress"]);
        let stopped = server.json("POST", "/sdapi/v1/interrupt", &[], &json!({})).await;
        assert_eq!((stopped.status, stopped.json), (200, json!({})));
    });
    assert_eq!(answer.status, 500);
    assert!(answer.json["detail"].as_str().unwrap().contains("cancel"), "{}", answer.text);
    server.until(PROGRESS, |is| is["state"]["job_count"] == 0).await;
    let list = server.get("/predictions").await.json;
    assert!(list["results"].as_array().unwrap().iter().all(|one| one["status"] == "canceled"), "{list}");
    assert_eq!(server.json("POST", "/sdapi/v1/interrupt", &[], &json!({})).await.status, 200, "nothing to stop");
    assert_eq!(server.get(&format!("{PROGRESS}?skip_current_image=perhaps")).await.status, 400);
}

#[tokio::test]
async fn a_client_that_leaves_stops_its_pictures() {
    let server = Server::start(&[]).await;
    let body = json!({"prompt": "until=/nowhere/at/all", "steps": 4});
    let post = server.request("POST", TXT2IMG).header("content-type", "application/json").body(body.to_string());
    let sending = tokio::spawn(post.send());
    server.until(PROGRESS, |is| is["state"]["sampling_step"] == 1).await;
    sending.abort();
    server.until("/predictions", |list| list["results"][0]["status"] == "canceled").await;
    server.until(PROGRESS, |is| is["state"]["job_count"] == 0).await;
}

#[tokio::test]
async fn menus_can_be_filled() {
    let server = Server::start(&[]).await;
    let list = async |name: &str| server.get(&format!("/sdapi/v1/{name}")).await.json;
    let models = list("sd-models").await;
    let options = list("options").await;
    assert_eq!(options["sd_model_checkpoint"], models[0]["title"]);
    assert!(options.get("forge_preset").is_none(), "clients would take it for another program");
    assert_eq!(models[0]["model_name"], "demo");
    assert!(models[0]["sha256"].as_str().unwrap().starts_with(models[0]["hash"].as_str().unwrap()));
    for name in ["samplers", "schedulers", "upscalers"] {
        let list = list(name).await;
        assert!(
            list.as_array().unwrap().iter().all(|one| one["name"].is_string()) && list[0].is_object(),
            "{name}: {list}"
        );
    }
    for name in ["latent-upscale-modes", "sd-vae", "sd-modules", "loras", "prompt-styles", "face-restorers"] {
        assert_eq!(list(name).await, json!([]), "{name}");
    }
    let set = server.json("POST", "/sdapi/v1/options", &[], &json!({"sd_model_checkpoint": "other"})).await;
    assert_eq!(set.status, 200);
    assert_eq!(list("options").await, options, "nothing can be set");
}

#[tokio::test]
async fn a_token_is_a_password() {
    let server = Server::start(&["--api-token", "first,second"]).await;
    for (authorization, status) in [
        (basic("first"), 200),
        (basic("second").to_lowercase().replacen("basic", "BASIC", 1), 401),
        (basic("third"), 401),
        ("Bearer first".to_owned(), 200),
        (String::new(), 401),
        ("Basic".to_owned(), 401),
    ] {
        let answer = ask(&server, "GET", "/sdapi/v1/options", &authorization).await;
        assert_eq!(answer.status, status, "{authorization}: {}", answer.text);
        assert!(status == 200 || answer.json["detail"].as_str().is_some_and(|detail| detail.contains("token")));
    }
    assert_eq!(ask(&server, "GET", "/predictions", &basic("first")).await.status, 401, "only where clients need it");
    // A browser that knows the password sends it for every page.
    let (authorization, body) = (basic("first"), json!({}));
    let foreign = [("authorization", authorization.as_str()), ("origin", "https://evil.example")];
    assert_eq!(server.json("POST", "/sdapi/v1/options", &foreign, &body).await.status, 403);

    let open = Server::start(&[]).await;
    assert_eq!(ask(&open, "GET", "/sdapi/v1/options", "").await.status, 200, "clients send an empty one");
}

#[tokio::test]
async fn callers_see_and_stop_only_their_own() {
    let server = Server::start(&["--api-token", "first,second"]).await;
    let body = json!({"prompt": "until=/nowhere/at/all", "steps": 4});
    let (mine, theirs) = (basic("first"), "Bearer second");
    let header = [("authorization", mine.as_str())];
    let (answer, ()) = tokio::join!(server.json("POST", TXT2IMG, &header, &body), async {
        // The same token, whichever way it is sent.
        while ask(&server, "GET", PROGRESS, "Bearer first").await.json["state"]["sampling_step"] != 1 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        assert_eq!(ask(&server, "GET", PROGRESS, theirs).await.json["state"]["job_count"], 0);
        ask(&server, "POST", "/sdapi/v1/interrupt", theirs).await;
        assert_eq!(ask(&server, "GET", PROGRESS, &mine).await.json["state"]["job_count"], 1);
        ask(&server, "POST", "/sdapi/v1/interrupt", &mine).await;
    });
    assert_eq!(answer.status, 500);
}

#[tokio::test]
async fn errors_have_the_form_of_this_api() {
    let server = Server::start(&[]).await;
    for (method, path, body, status, words) in [
        ("POST", TXT2IMG, json!({"width": 256, "height": 256}), 422, "`512x512`"),
        ("POST", TXT2IMG, json!([]), 422, "not a JSON object"),
        ("POST", TXT2IMG, json!({"prompt": "a", "steps": 999}), 422, "greater than the maximum of 200"),
        ("POST", TXT2IMG, json!({"prompt": "fail", "steps": 2}), 500, "told to fail"),
        ("GET", "/sdapi/v1/nothing", json!({}), 404, "there is no path"),
        ("GET", TXT2IMG, json!({}), 405, "is not a method"),
    ] {
        let answer = server.json(method, path, &[], &body).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text);
        let keys: Vec<&String> = answer.json.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["body", "detail", "error", "errors"]);
        assert!(answer.json["detail"].as_str().unwrap().contains(words), "{}", answer.text);
    }
}

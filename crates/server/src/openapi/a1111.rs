//! The operations of AUTOMATIC1111's API, and what they send and answer.

use serde_json::{Map, Value, json};

use super::parts::{Answer, answer, header, ok, operation, query, reference};
use crate::http::a1111::lists::EMPTY;

pub(super) fn paths() -> Value {
    let mut paths = json!({
        "/sdapi/v1/txt2img": { "post": txt2img() },
        "/sdapi/v1/img2img": { "post": img2img() },
        "/sdapi/v1/progress": { "get": progress() },
        "/sdapi/v1/interrupt": { "post": interrupt("interrupt") },
        "/sdapi/v1/skip": { "post": interrupt("skip") },
        "/sdapi/v1/options": { "get": options(), "post": set_options() },
        "/sdapi/v1/sd-models": { "get": list("sd-models", "The model") },
        "/sdapi/v1/samplers": { "get": list("samplers", "The schedulers by the names of samplers") },
        "/sdapi/v1/schedulers": { "get": list("schedulers", "Noise schedules: one that is automatic") },
        "/sdapi/v1/upscalers": { "get": list("upscalers", "Upscalers: `None`") },
        "/sdapi/v1/embeddings": { "get": embeddings() },
    });
    for name in EMPTY {
        paths[format!("/sdapi/v1/{name}")] = json!({ "get": list(name, "An empty list") });
    }
    paths
}

pub(super) fn schemas() -> Map<String, Value> {
    let text = || json!({ "type": "string" });
    let error = json!({
        "title": "A1111Error",
        "type": "object",
        "required": ["error", "detail", "body", "errors"],
        "properties": { "error": text(), "detail": text(), "body": text(), "errors": text() },
    });
    let number = |description: &str| json!({ "type": "number", "nullable": true, "description": description });
    let whole = |description: &str| json!({ "type": "integer", "nullable": true, "description": description });
    let request = json!({
        "title": "Txt2ImgRequest",
        "type": "object",
        "description": "Every input of `Input` is a key, too. Unknown keys are ignored.",
        "properties": {
            "prompt": { "type": "string", "nullable": true },
            "negative_prompt": { "type": "string", "nullable": true },
            "width": whole("Any from 512 to 3072; what the model cannot draw is drawn larger, and its middle kept"),
            "height": whole("Likewise"),
            "steps": whole("`num_inference_steps`"),
            "cfg_scale": number("`guidance_scale`"),
            "seed": whole("A negative number is any; so is nothing"),
            "batch_size": whole("How many pictures, times `n_iter`; at most 10"),
            "n_iter": whole("How many times `batch_size`"),
            "sampler_name": { "type": "string", "nullable": true, "description": "One of `samplers`; others are ignored" },
        },
    });
    let mut given = request.clone();
    given["title"] = "Img2ImgRequest".into();
    for (name, field) in [
        (
            "init_images",
            json!({
                "type": "array",
                "items": { "type": "string" },
                "nullable": true,
                "description": "One picture: base64, a data URI or a URL",
            }),
        ),
        (
            "denoising_strength",
            json!({
                "type": "number",
                "minimum": 0,
                "maximum": 1,
                "nullable": true,
                "description": "`strength`, 0.75 if left out",
            }),
        ),
        (
            "resize_mode",
            whole(
                "How the picture fills `width` and `height`: 0 stretches it, 1 cuts off what is too much, 2 \
            draws what is missing",
            ),
        ),
    ] {
        given["properties"][name] = field;
    }
    let response = json!({
        "title": "Txt2ImgResponse",
        "type": "object",
        "required": ["images", "parameters", "info"],
        "properties": {
            "images": { "type": "array", "items": { "type": "string", "description": "A PNG as base64" } },
            "parameters": { "type": "object" },
            "info": { "type": "string", "description": "JSON as a text: `seed`, `all_seeds`, `infotexts` and more" },
        },
    });
    Map::from_iter([
        ("Txt2ImgRequest".to_owned(), request),
        ("Img2ImgRequest".to_owned(), given),
        ("Txt2ImgResponse".to_owned(), response),
        ("A1111Error".to_owned(), error),
    ])
}

fn refused(status: &str, description: &str) -> Answer {
    answer(status, description, &reference("A1111Error"))
}

fn unauthorized() -> Answer {
    refused("401", "Missing or invalid API token, which may be the password of `Basic`")
}

/// The id of an operation.
fn id(name: &str, method: &str) -> String {
    format!("{}_sdapi_v1_{method}", name.replace('-', "_"))
}

fn txt2img() -> Value {
    let description = "Draw pictures, as clients of AUTOMATIC1111's web UI ask for them";
    create("Txt2Img", description)
}

fn img2img() -> Value {
    let description = "Draw a picture again, as clients of AUTOMATIC1111's web UI ask for it";
    create("Img2Img", description)
}

/// The operation that draws pictures, of this name.
fn create(name: &str, description: &str) -> Value {
    let answers = [
        ok(&reference("Txt2ImgResponse")),
        refused("400", "The body cannot be read"),
        unauthorized(),
        refused("408", "The body takes too long"),
        refused("409", "All workers are busy and there is no queue"),
        refused("413", "The body is too large"),
        refused("415", "The body is compressed"),
        refused("422", "The request is not valid"),
        refused("429", "The queue is full; `Retry-After` says when to try again"),
        refused("500", "A picture could not be drawn, or was stopped"),
        refused("503", "No worker has loaded yet or none is left, or the server is stopping"),
    ];
    let limit = "Cancel the pictures after this time, such as `90` or `1m30s`; 5 seconds to 24 hours";
    let key = "The same request with the same key is answered with the pictures of the first";
    let parameters = [header("Idempotency-Key", key), header("Cancel-After", limit)];
    let mut operation = operation(name, &id(&name.to_lowercase(), "post"), description, &parameters, answers);
    let schema = reference(&format!("{name}Request"));
    operation["requestBody"] = json!({ "required": true, "content": { "application/json": { "schema": schema } } });
    operation
}

fn progress() -> Value {
    let answers =
        [ok(&json!({ "type": "object" })), refused("400", "A parameter cannot be read"), unauthorized(), unreadable()];
    let parameters = [query("skip_current_image", &json!({ "type": "boolean" }))];
    let description = "How far the newest pictures of the caller are, with a preview";
    operation("Progress", &id("progress", "get"), description, &parameters, answers)
}

fn unreadable() -> Answer {
    refused("503", "The disk cannot be used")
}

fn interrupt(name: &str) -> Value {
    let answers = [ok(&json!({ "type": "object" })), unauthorized(), unreadable()];
    let description = "Stop the newest pictures of the caller";
    operation("Interrupt", &id(name, "post"), description, &[], answers)
}

fn options() -> Value {
    let answers = [ok(&json!({ "type": "object" })), unauthorized()];
    operation("Options", &id("options", "get"), "The name of the model", &[], answers)
}

fn set_options() -> Value {
    let answers = [ok(&json!({ "type": "object" })), unauthorized()];
    operation("Set Options", &id("options", "post"), "Takes anything and changes nothing", &[], answers)
}

fn list(name: &str, description: &str) -> Value {
    let answers = [ok(&json!({ "type": "array", "items": {} })), unauthorized()];
    operation("List", &id(name, "get"), description, &[], answers)
}

fn embeddings() -> Value {
    let answers = [ok(&json!({ "type": "object" })), unauthorized()];
    operation("Embeddings", &id("embeddings", "get"), "None", &[], answers)
}

//! The operations of OpenAI's images, and what they send and answer.

use serde_json::{Map, Value, json};

use super::parts::{Answer, answer, empty, header, ok, operation, reference};

pub(super) fn paths() -> Value {
    json!({
        "/v1/images/generations": { "post": generate(), "options": options("generations") },
        "/v1/images/edits": { "post": edit(), "options": options("edits") },
        "/v1/models/capabilities": { "get": capabilities() },
        "/v1/models/{model}": { "get": model() },
    })
}

pub(super) fn schemas() -> Map<String, Value> {
    let image = json!({
        "type": "object",
        "required": ["seed", "prediction_id"],
        "properties": {
            "b64_json": { "type": "string", "description": "The picture as base64" },
            "url": { "type": "string", "format": "uri", "description": "Where the picture is, without a token" },
            "seed": { "type": "integer" },
            "prediction_id": { "type": "string" },
        },
    });
    let count = || json!({ "type": "integer" });
    let details = json!({ "image_tokens": count(), "text_tokens": count() });
    let usage = json!({
        "type": "object",
        "required": ["input_tokens", "input_tokens_details", "output_tokens", "total_tokens"],
        "properties": {
            "input_tokens": { "type": "integer", "description": "Pieces of the prompts, as CLIP's tokenizer begins" },
            "input_tokens_details": {
                "type": "object",
                "required": ["image_tokens", "text_tokens"],
                "properties": details,
            },
            "output_tokens": { "type": "integer", "description": "One for each 1024 pixels" },
            "total_tokens": count(),
        },
    });
    let response = json!({
        "title": "ImagesResponse",
        "type": "object",
        "required": ["background", "created", "data", "output_format", "quality", "size", "usage"],
        "properties": {
            "background": { "type": "string", "enum": ["opaque"] },
            "created": { "type": "integer" },
            "data": { "type": "array", "items": image },
            "output_format": { "type": "string", "enum": ["png", "jpeg", "webp"] },
            "quality": { "type": "string", "enum": ["low", "high"] },
            "safety_identifier": { "type": "string" },
            "size": { "type": "string" },
            "usage": usage,
        },
    });
    let nullable = || json!({ "type": "string", "nullable": true });
    let error = json!({
        "title": "OpenAIError",
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "param", "code"],
                "properties": {
                    "message": { "type": "string" },
                    "type": { "type": "string" },
                    "param": nullable(),
                    "code": nullable(),
                },
            },
        },
    });
    let card = json!({
        "title": "ModelCard",
        "type": "object",
        "required": ["id", "object", "created", "owned_by"],
        "properties": {
            "id": { "type": "string" },
            "object": { "type": "string", "enum": ["model"] },
            "created": { "type": "integer" },
            "owned_by": { "type": "string" },
        },
    });
    Map::from_iter([
        ("ImagesRequest".to_owned(), request()),
        ("ImageEditRequest".to_owned(), edit_request()),
        ("ImagesResponse".to_owned(), response),
        ("OpenAIError".to_owned(), error),
        ("ModelCard".to_owned(), card),
    ])
}

fn request() -> Value {
    let text = |description: &str| json!({ "type": "string", "nullable": true, "description": description });
    let whole = |minimum: u64, maximum: u64, description: &str| json!({ "type": "integer", "nullable": true, "minimum": minimum, "maximum": maximum, "description": description });
    json!({
        "title": "ImagesRequest",
        "type": "object",
        "description": "Every input of `Input` is a key, too. Unknown keys are ignored.",
        "required": ["prompt"],
        "properties": {
            "prompt": { "type": "string" },
            "model": text("`syncdiffusion`, or a name of OpenAI's (`gpt-image-*`, `dall-e-*`)"),
            "n": whole(1, 10, "How many pictures: seeds from `seed` on"),
            "size": text("`WIDTHxHEIGHT`, or `auto`. What the model cannot draw is drawn larger, and its middle kept"),
            "quality": text("`low` takes 25 steps; everything else changes nothing"),
            "output_format": text("The format of the pictures"),
            "output_compression": whole(0, 100, "The quality of a format that loses something"),
            "background": text("`auto` or `opaque`"),
            "response_format": text("`b64_json`, or `url`, which is usual for `dall-e-*`"),
            "stream": { "type": "boolean", "nullable": true, "description": "Answer with events" },
            "partial_images": whole(0, 3, "Previews of a stream"),
            "seed": whole(0, u64::MAX, "Seed of the first picture; random if left out"),
            "user": text("Who asks, for the log"),
            "safety_identifier": text("Who asks, for the log"),
            "webhook": text("Where the events of the predictions are sent"),
        },
    })
}

/// What a request for an edit has besides.
fn edit_request() -> Value {
    let mut request = request();
    request["title"] = "ImageEditRequest".into();
    let picture = "The picture: a URL or a data URI; in a form, a file in `image` or `image[]`";
    let strength = "How much of the picture is drawn again. If it is left out, the picture is kept and drawn around; one \
        that leaves nothing to draw is drawn again by 0.75";
    let left = "Column at which the picture begins; in the middle if left out";
    for (name, field) in [
        ("image", json!({ "type": "string", "nullable": true, "description": picture })),
        (
            "strength",
            json!({ "type": "number", "minimum": 0, "maximum": 1, "nullable": true, "description": strength }),
        ),
        ("image_left", json!({ "type": "integer", "minimum": 0, "nullable": true, "description": left })),
    ] {
        request["properties"][name] = field;
    }
    request["required"] = json!(["prompt", "image"]);
    request
}

/// The same as a form: every value is a text, the picture a file.
fn edit_form() -> Value {
    let mut form = edit_request();
    form["title"] = "ImageEditForm".into();
    form["properties"]["image"] = json!({ "type": "string", "format": "binary", "description": "The picture" });
    form
}

fn refused(status: &str, description: &str) -> Answer {
    answer(status, description, &reference("OpenAIError"))
}

fn generate() -> Value {
    let description = "Draw pictures, as OpenAI's clients ask for them";
    let mut operation = create("generations", description);
    operation["requestBody"] =
        json!({ "required": true, "content": { "application/json": { "schema": reference("ImagesRequest") } } });
    operation
}

fn edit() -> Value {
    let description = "Draw a panorama around a picture, or draw the picture again, as OpenAI's clients ask for it";
    let mut operation = create("edits", description);
    let content = json!({
        "multipart/form-data": { "schema": edit_form() },
        "application/json": { "schema": reference("ImageEditRequest") },
    });
    operation["requestBody"] = json!({ "required": true, "content": content });
    operation
}

fn create(route: &str, description: &str) -> Value {
    let (status, mut done) = ok(&reference("ImagesResponse"));
    done["content"]["text/event-stream"] = json!({ "schema": {} });
    let answers = [
        (status, done),
        refused("400", "The request is not valid"),
        refused("401", "Missing or invalid API token"),
        refused("404", "There is no such model"),
        refused("413", "The body is too large"),
        refused("429", "The queue is full; `Retry-After` says when to try again"),
        refused("500", "A picture could not be drawn; `x-should-retry: false`"),
        refused("503", "No worker has loaded yet or none is left, or the server is stopping"),
    ];
    let parameters = [
        header("Idempotency-Key", "The same request with the same key is answered with the pictures of the first"),
        header("x-stainless-retry-count", "Above 0, the same request waits for its first job"),
        header("Cancel-After", "Cancel the pictures after this time, such as `90` or `1m30s`; 5 seconds to 24 hours"),
    ];
    operation("Images", &format!("images_v1_images_{route}_post"), description, &parameters, answers)
}

fn options(route: &str) -> Value {
    let description = "Whether the route exists; needs no token";
    let id = format!("images_v1_images_{route}_options");
    operation("Images", &id, description, &[], [empty("204", "It does")])
}

fn model() -> Value {
    let schema = json!({ "title": "Model", "type": "string", "minLength": 1 });
    let name = json!({ "in": "path", "name": "model", "required": true, "schema": schema });
    let answers = [
        ok(&reference("ModelCard")),
        refused("401", "Missing or invalid API token"),
        refused("404", "There is no such model"),
    ];
    operation("Model", "model_v1_models__model__get", "The card of a model, as OpenAI has it", &[name], answers)
}

fn capabilities() -> Value {
    let capable = json!({
        "type": "object",
        "required": ["id", "object", "capabilities"],
        "properties": {
            "id": { "type": "string" },
            "object": { "type": "string" },
            "capabilities": { "type": "array", "items": { "type": "string" } },
        },
    });
    let list = json!({
        "type": "object",
        "required": ["object", "data"],
        "properties": { "object": { "type": "string" }, "data": { "type": "array", "items": capable } },
    });
    let answers = [ok(&list), refused("401", "Missing or invalid API token")];
    let description = "What each name of the model can do, as LocalAI has it";
    operation("Capabilities", "capabilities_v1_models_capabilities_get", description, &[], answers)
}

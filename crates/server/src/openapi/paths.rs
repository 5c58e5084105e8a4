//! The operations, by path.

use prediction::output::MAX_THUMBNAIL;
use serde_json::{Value, json};

use super::parts::{answer, content, empty, header, id, ok, operation, picture, query, reference, unknown, unwritten};
use super::replicate::problem;

pub(super) fn paths() -> Value {
    json!({
        "/": { "get": root() },
        "/docs": { "get": page("Docs", "docs_docs_get") },
        "/playground": { "get": page("Playground", "playground_playground_get") },
        "/openapi.json": { "get": openapi() },
        "/health-check": { "get": health_check() },
        "/ready": { "get": ready() },
        "/metrics": { "get": metrics() },
        "/live": { "get": live() },
        "/shutdown": { "post": shutdown() },
        "/predictions": { "post": create(false), "get": list() },
        "/predictions/{prediction_id}": { "put": create(true), "get": get(), "delete": delete() },
        "/predictions/{prediction_id}/cancel": { "post": cancel() },
        "/predictions/{prediction_id}/link": { "get": link() },
        "/predictions/{prediction_id}/output": { "get": output() },
        "/predictions/{prediction_id}/stream": { "get": stream() },
        "/files/{name}": { "get": file() },
        "/view/{prediction_id}": { "get": view() },
        "/view/{prediction_id}/picture": { "get": shown() },
        "/usage": { "get": usage() },
        "/v1/webhooks/default/secret": { "get": webhook_secret() },
    })
}

fn root() -> Value {
    let description = "Where everything is; browsers get the playground";
    operation("Root", "root__get", description, &[], [ok(&json!({}))])
}

fn page(summary: &str, operation_id: &str) -> Value {
    let html = content("200", "Successful Response", "text/html", &json!({ "type": "string" }));
    operation(summary, operation_id, "A page for people", &[], [html])
}

/// The page of one picture.
fn view() -> Value {
    let html = content("200", "Successful Response", "text/html", &json!({ "type": "string" }));
    let description = "A page that shows one panorama to whoever has its link; other pages may embed it";
    operation("View", "view_view__prediction_id__get", description, &[id(), key()], [html])
}

/// The picture on that page.
fn shown() -> Value {
    let lost = answer("404", "There is no such picture, or the key is wrong", &reference("Detail"));
    let answers = [picture("200", "The picture"), lost];
    let description = "The picture of a prediction, for whoever has its key";
    operation("Shown", "shown_view__prediction_id__picture_get", description, &[id(), key(), which()], answers)
}

/// The number of a picture.
fn which() -> Value {
    query("n", &json!({ "type": "integer", "minimum": 0, "default": 0, "description": "Which of several pictures" }))
}

/// The key of a picture.
fn key() -> Value {
    query("key", &json!({ "title": "Key", "type": "string" }))
}

/// What makes the key.
fn link() -> Value {
    let text = json!({ "type": "string" });
    let schema = json!({
        "type": "object", "required": ["key", "url"], "properties": { "key": text, "url": text },
    });
    let description = "The link to a page that shows the picture of a prediction to whoever has it, without a token";
    let answers = [ok(&schema), unknown()];
    operation("Link", "link_predictions__prediction_id__link_get", description, &[id()], answers)
}

fn openapi() -> Value {
    let document = ok(&json!({ "type": "object" }));
    operation("OpenAPI", "openapi_openapi_json_get", "This document", &[], [document])
}

fn health_check() -> Value {
    let description = "The state of the server; always 200";
    operation("Healthcheck", "healthcheck_health_check_get", description, &[], [ok(&reference("Health"))])
}

fn ready() -> Value {
    let answers = [ok(&reference("Health")), answer("503", "Not ready", &reference("Health"))];
    operation("Ready", "ready_ready_get", "Readiness probe: whether predictions are accepted", &[], answers)
}

fn live() -> Value {
    let dead = answer("503", "No worker is left, and none will be started (DEFUNCT)", &reference("Health"));
    operation("Live", "live_live_get", "Liveness probe", &[], [ok(&reference("Health")), dead])
}

fn metrics() -> Value {
    let text = content("200", "Successful Response", "text/plain", &json!({ "type": "string" }));
    operation("Metrics", "metrics_metrics_get", "Metrics for Prometheus", &[], [text])
}

fn shutdown() -> Value {
    let description = "Stop the server as SIGTERM does";
    operation("Shutdown", "start_shutdown_shutdown_post", description, &[], [ok(&json!({}))])
}

/// POST `/predictions`, or PUT with an id.
fn create(put: bool) -> Value {
    let (summary, operation_id, description) = if put {
        (
            "Predict Idempotent",
            "predict_idempotent_predictions__prediction_id__put",
            "Run a prediction once, however often it is requested",
        )
    } else {
        ("Predict", "predict_predictions_post", "Run a single prediction on the model")
    };
    let mut parameters = vec![
        header(
            "Prefer",
            "`respond-async` returns at once; `wait=n` waits for n seconds at most; `preview` adds previews to a stream",
        ),
        header("Cancel-After", "Cancel the prediction after this time, such as `90` or `1m30s`; 5 seconds to 24 hours"),
    ];
    if put {
        parameters.insert(0, id());
    } else {
        let key = "A request that repeats another is answered with its prediction; another one with its key is refused";
        parameters.push(header("Idempotency-Key", key));
    }
    let (prediction, detail, refusal) = (reference("PredictionResponse"), reference("Detail"), reference("Refusal"));
    let (status, mut done) = ok(&prediction);
    done["content"]["text/event-stream"] = json!({ "schema": {} });
    let invalid = json!({ "anyOf": [reference("HTTPValidationError"), reference("Detail")] });
    let answers = [
        (status, done),
        answer("202", "Accepted: the prediction is queued or runs", &prediction),
        answer("400", "The body is not JSON", &detail),
        answer("408", "The body takes too long", &detail),
        answer(
            "409",
            "All workers are busy and there is no queue, or the id is in use or has a webhook pending",
            &refusal,
        ),
        answer("413", "The body is too large", &detail),
        answer("415", "The body is of another type", &detail),
        answer("422", "Validation Error", &invalid),
        answer("429", "The queue is full; `Retry-After` says when to try again", &refusal),
        answer(
            "503",
            "No worker has loaded yet or none is left, the server is stopping, or the disk cannot be written",
            &refusal,
        ),
    ];
    let mut operation = operation(summary, operation_id, description, &parameters, answers);
    operation["requestBody"] =
        json!({ "content": { "application/json": { "schema": reference("PredictionRequest") } } });
    operation["x-cog-streaming"] = true.into();
    operation
}

fn list() -> Value {
    let parameters = [
        query("cursor", &json!({ "type": "string" })),
        query("status", &reference("Status")),
        query(
            "q",
            &json!({
                "type": "string",
                "maxLength": 256,
                "description": "Only those whose prompt contains this text, in upper or lower case. A page looks at a bounded number of \
                    predictions, and may be short or empty while `next` or `previous` leads on",
            }),
        ),
        query("limit", &json!({ "type": "integer", "minimum": 1, "maximum": 100, "default": 20 })),
    ];
    let answers = [
        ok(&reference("PredictionList")),
        answer("400", "A parameter cannot be read", &reference("Detail")),
        answer("422", "A parameter is not valid", &reference("Detail")),
        answer("503", "Lists of other clients fill the memory for lists; try again", &reference("Detail")),
    ];
    operation("List", "list_predictions_get", "Predictions, newest first", &parameters, answers)
}

fn get() -> Value {
    let answers = [ok(&reference("PredictionResponse")), unknown()];
    operation("Get", "get_predictions__prediction_id__get", "The current state of a prediction", &[id()], answers)
}

fn delete() -> Value {
    let active = answer("409", "The prediction has not ended", &reference("Detail"));
    operation(
        "Delete",
        "delete_predictions__prediction_id__delete",
        "Remove a prediction that has ended, with its picture",
        &[id()],
        [empty("204", "Removed"), unknown(), active, unwritten()],
    )
}

fn cancel() -> Value {
    let answers = [
        ok(&json!({})),
        answer("404", "The prediction does not exist or has ended", &json!({})),
        answer("422", "Validation Error", &reference("HTTPValidationError")),
        unwritten(),
    ];
    operation("Cancel", "cancel_predictions__prediction_id__cancel_post", "Cancel a prediction", &[id()], answers)
}

fn output() -> Value {
    let answers = [
        picture("200", "Successful Response"),
        answer("400", "A parameter cannot be read", &reference("Detail")),
        answer("404", "There is no such prediction, or it has no such picture", &reference("Detail")),
        answer("422", "A parameter is not valid", &reference("Detail")),
    ];
    let parameters = [
        id(),
        which(),
        query(
            "width",
            &json!({
                "type": "integer",
                "minimum": 1,
                "maximum": MAX_THUMBNAIL,
                "description": "A JPEG of this width, or of the next power of two from 64 on; at most as wide as the picture",
            }),
        ),
    ];
    let summary = "A picture as a file, or a small copy of it";
    operation("Output", "output_predictions__prediction_id__output_get", summary, &parameters, answers)
}

fn stream() -> Value {
    // This version of OpenAPI does not say whether a schema of a stream describes its text or one event.
    let events = content(
        "200",
        "Events start, log, progress, metric, output, completed, and preview where it is asked for",
        "text/event-stream",
        &json!({}),
    );
    operation(
        "Stream",
        "stream_predictions__prediction_id__stream_get",
        "Follow a prediction as server-sent events",
        &[
            id(),
            header("Last-Event-ID", "Resume after this event"),
            header("Prefer", "`preview` adds events `preview` with small pictures"),
            query("preview", &json!({ "type": "boolean" })),
        ],
        [
            events,
            empty("204", "There is nothing after that event"),
            answer("400", "A parameter cannot be read", &reference("Detail")),
            unknown(),
        ],
    )
}

fn file() -> Value {
    let schema = json!({ "title": "Name", "type": "string" });
    let name = json!({ "in": "path", "name": "name", "required": true, "schema": schema });
    operation(
        "File",
        "file_files__name__get",
        "The picture of a prediction whose output is this URL (`--output files`)",
        &[name, header("Range", "Only these bytes")],
        [
            picture("200", "Successful Response"),
            picture("206", "The requested bytes"),
            empty("304", "The client has the current picture"),
            answer("404", "There is no such picture, or it is no longer kept", &reference("Detail")),
            empty("416", "The picture does not have these bytes"),
        ],
    )
}

fn usage() -> Value {
    let description = "What was drawn for the tokens of each name; `null` is the name of those without one";
    let failed = answer("503", "The store cannot be read", &reference("Refusal"));
    operation("Usage", "usage_usage_get", description, &[], [ok(&reference("Usage")), failed])
}

fn webhook_secret() -> Value {
    let key = json!({ "type": "object", "required": ["key"], "properties": { "key": { "type": "string" } } });
    operation(
        "Webhook Secret",
        "webhooks_default_secret_get",
        "The secret that webhooks are signed with, if the server shows it (`--show-webhook-secret`)",
        &[],
        [ok(&key), problem("404", "The server does not show it")],
    )
}

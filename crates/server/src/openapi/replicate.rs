//! Replicate's `/v1`: its operations and components.

use prediction::Status;
use serde_json::{Value, json};

use super::parts::{self, Answer, answer, content, empty, header, ok, operation, query, reference};
use crate::http::idempotency::MAX_KEY;

/// An error of these paths.
pub(super) fn problem(status: &str, description: &str) -> Answer {
    content(status, description, "application/problem+json", &reference("Problem"))
}

pub(super) fn paths() -> Value {
    let model = "/v1/models/{owner}/{name}";
    let mut paths = json!({
        "/v1/predictions": { "post": create(false), "get": list() },
        "/v1/predictions/{prediction_id}": { "get": get() },
        "/v1/predictions/{prediction_id}/cancel": { "post": cancel() },
        "/v1/models": { "get": models(), "post": nothing("Create Model", "v1_models_post", &[]) },
        "/v1/search": { "get": search() },
        "/v1/account": { "get": account() },
        "/v1/hardware": { "get": hardware() },
        "/v1/collections": { "get": empty_list("Collections", "v1_collections_get") },
        "/v1/trainings": { "get": empty_list("Trainings", "v1_trainings_get") },
        "/v1/deployments": {
            "get": empty_list("Deployments", "v1_deployments_get"),
            "post": nothing("Create Deployment", "v1_deployments_post", &[]),
        },
        "/v1/files": { "post": upload(), "get": files() },
        "/v1/files/{file}": { "get": file(), "delete": remove() },
        "/v1/files/output/{name}": { "get": picture() },
        "/v1/files/stream/{name}": { "get": stream() },
    });
    let (owner, name) = (in_path("owner"), in_path("name"));
    let both = [owner.clone(), name.clone()];
    let version = [owner, name, in_path("version")];
    paths[model] = json!({
        "get": of_model("Model", "v1_model_get", &both, &reference("V1Model")),
        "patch": nothing("Update Model", "v1_model_patch", &both),
        "delete": nothing("Delete Model", "v1_model_delete", &both),
    });
    paths[format!("{model}/predictions")] = json!({ "post": create(true) });
    let page = page(&reference("V1Version"));
    paths[format!("{model}/versions")] = json!({ "get": of_model("Versions", "v1_versions_get", &both, &page) });
    paths[format!("{model}/versions/{{version}}")] = json!({
        "get": of_model("Version", "v1_version_get", &version, &reference("V1Version")),
        "delete": nothing("Delete Version", "v1_version_delete", &version),
    });
    let page = self::page(&json!({}));
    paths[format!("{model}/examples")] = json!({ "get": of_model("Examples", "v1_examples_get", &both, &page) });
    let text = content("200", "Successful Response", "text/plain", &json!({ "type": "string" }));
    let readme = [text, problem("404", "The server has another model")];
    paths[format!("{model}/readme")] =
        json!({ "get": operation("Readme", "v1_readme_get", "What the model is, for people", &both, readme) });
    paths
}

/// A text in a path.
fn in_path(name: &str) -> Value {
    json!({ "in": "path", "name": name, "required": true, "schema": { "type": "string", "minLength": 1 } })
}

fn prediction_id() -> Value {
    in_path("prediction_id")
}

/// A page of a list.
fn page(item: &Value) -> Value {
    json!({
        "type": "object",
        "required": ["next", "previous", "results"],
        "properties": {
            "next": { "type": "string", "nullable": true },
            "previous": { "type": "string", "nullable": true },
            "results": { "type": "array", "items": item },
        },
    })
}

/// POST of a prediction, by version or by model.
fn create(by_model: bool) -> Value {
    let (summary, id, description) = if by_model {
        ("Predict By Model", "v1_models_predictions_post", "Run a prediction on the newest version of the model")
    } else {
        ("Predict By Version", "v1_predictions_post", "Run a prediction on a version of the model")
    };
    let key = format!("A request that repeats another is answered with its prediction; at most {MAX_KEY} characters");
    let mut parameters = vec![
        header("Prefer", "`wait` waits for the end for about a minute, `wait=n` for n seconds"),
        header("Cancel-After", "Cancel the prediction after this time, such as `90` or `1m30s`; 5 seconds to 24 hours"),
        header("Idempotency-Key", &key),
    ];
    if by_model {
        parameters.splice(0..0, [in_path("owner"), in_path("name")]);
    }
    let mut answers = vec![
        answer("201", "Created; `starting` until it has ended", &reference("V1Prediction")),
        problem("400", "The body is not JSON"),
        problem("408", "The body takes too long"),
        problem("413", "The body is too large"),
        problem("415", "The body is of another type"),
        problem("422", "What is asked for is not valid, or the model has another version"),
        problem("429", "The queue is full; `Retry-After` says when to try again"),
        problem(
            "503",
            "No worker has loaded yet or none is left, the server is stopping, or the disk cannot be written",
        ),
    ];
    if by_model {
        answers.push(problem("404", "The server has another model"));
    }
    let mut operation = operation(summary, id, description, &parameters, answers);
    let required = if by_model { json!(["input"]) } else { json!(["input", "version"]) };
    operation["requestBody"] = json!({ "required": true, "content": { "application/json": { "schema": {
        "type": "object",
        "required": required,
        "additionalProperties": false,
        "properties": {
            "version": { "type": "string", "description": "`VERSION`, `OWNER/NAME:VERSION`, or `OWNER/NAME` for the newest" },
            "input": reference("Input"),
            "stream": { "type": "boolean", "description": "Ignored: every prediction can be streamed" },
            "webhook": { "type": "string", "format": "uri" },
            "webhook_completed": { "type": "string", "format": "uri" },
            "webhook_events_filter": {
                "type": "array",
                "items": { "type": "string", "enum": ["start", "output", "logs", "completed"] },
            },
        },
    } } } });
    operation
}

fn list() -> Value {
    let time = json!({ "type": "string", "format": "date-time" });
    let parameters =
        [query("cursor", &json!({ "type": "string" })), query("created_after", &time), query("created_before", &time)];
    let answers = [
        ok(&page(&reference("V1Prediction"))),
        problem("400", "A parameter cannot be read"),
        problem("422", "A parameter is not valid"),
        problem("503", "Lists of other clients fill the memory for lists; try again"),
    ];
    operation("List Predictions", "v1_predictions_get", "Predictions, newest first", &parameters, answers)
}

fn get() -> Value {
    let answers = [ok(&reference("V1Prediction")), problem("404", "There is no such prediction")];
    operation("Get Prediction", "v1_prediction_get", "The current state of a prediction", &[prediction_id()], answers)
}

fn cancel() -> Value {
    let answers = [
        ok(&reference("V1Prediction")),
        problem("404", "There is no such prediction"),
        problem("503", "The disk cannot be written; nothing was done"),
    ];
    let description = "Cancel a prediction; one that has ended stays as it is";
    operation("Cancel Prediction", "v1_prediction_cancel_post", description, &[prediction_id()], answers)
}

fn models() -> Value {
    let mut list = page(&reference("V1Model"));
    list["properties"]["object"] = json!({ "type": "string" });
    list["properties"]["data"] = json!({ "type": "array", "items": { "type": "object" } });
    let description =
        "The model: `results` is for clients of Replicate, which search with QUERY, `data` for those of OpenAI";
    operation("Models", "v1_models_get", description, &[], [ok(&list)])
}

fn search() -> Value {
    let mut text = query("query", &json!({ "type": "string" }));
    text["required"] = true.into();
    let parameters = [text, query("limit", &json!({ "type": "integer", "minimum": 0, "maximum": 50 }))];
    let answers = [
        ok(&json!({ "type": "object" })),
        problem("400", "A parameter cannot be read"),
        problem("422", "A parameter is not valid"),
    ];
    operation("Search", "v1_search_get", "Whether a text finds the model", &parameters, answers)
}

fn account() -> Value {
    let account = json!({
        "type": "object",
        "required": ["type", "username", "name"],
        "properties": {
            "type": { "type": "string" }, "username": { "type": "string" }, "name": { "type": "string" },
        },
    });
    operation("Account", "v1_account_get", "The owner of the model", &[], [ok(&account)])
}

fn hardware() -> Value {
    let one = json!({ "type": "object", "required": ["sku", "name"] });
    let list = json!({ "type": "array", "items": one });
    operation("Hardware", "v1_hardware_get", "The device of the workers", &[], [ok(&list)])
}

fn empty_list(summary: &str, id: &str) -> Value {
    operation(summary, id, "An empty page: this server has none", &[], [ok(&page(&json!({})))])
}

/// What only Replicate can do.
fn nothing(summary: &str, id: &str, parameters: &[Value]) -> Value {
    operation(summary, id, "Not possible here", parameters, [problem("404", "This server has one model, as it is")])
}

/// What there is of the model.
fn of_model(summary: &str, id: &str, parameters: &[Value], schema: &Value) -> Value {
    let answers = [ok(schema), problem("404", "The server has another model or version")];
    operation(summary, id, "The model, as Replicate's clients read it", parameters, answers)
}

fn upload() -> Value {
    let answers = [
        answer("201", "The file is kept for a day", &reference("V1File")),
        problem("400", "The body cannot be read"),
        problem("408", "The body takes too long"),
        problem("413", "The body is too large"),
        problem("415", "The body is of another type"),
        problem("422", "The parts are not valid"),
        problem("503", "There is no room for it"),
    ];
    let description = "Keep a file to use its URL as an input; only the client that uploaded it can";
    let mut operation = operation("Upload File", "v1_files_post", description, &[], answers);
    operation["requestBody"] = json!({ "required": true, "content": { "multipart/form-data": { "schema": {
        "type": "object",
        "required": ["content"],
        "properties": {
            "content": { "type": "string", "format": "binary" },
            "filename": { "type": "string" },
            "type": { "type": "string" },
            "metadata": { "type": "object" },
        },
    } } } });
    operation
}

fn files() -> Value {
    operation("Files", "v1_files_get", "The files of this client, newest first", &[], [ok(&page(&reference("V1File")))])
}

fn file() -> Value {
    let answers = [ok(&reference("V1File")), problem("404", "This client has no such file")];
    operation("File Of Client", "v1_file_get", "What is known of a file", &[in_path("file")], answers)
}

fn remove() -> Value {
    let answers = [empty("204", "Removed"), problem("404", "This client has no such file")];
    operation("Delete File", "v1_file_delete", "Remove a file", &[in_path("file")], answers)
}

fn picture() -> Value {
    let answers = [parts::picture("200", "Successful Response"), problem("404", "There is no such picture")];
    let description = "The picture of a prediction, for everybody who was given this URL";
    operation("Output File", "v1_files_output_get", description, &[in_path("name")], answers)
}

fn stream() -> Value {
    let events = content("200", "Events output, logs, error and done", "text/event-stream", &json!({}));
    let nothing = empty("204", "There is nothing after that event");
    let answers = [events, nothing, problem("404", "There is no such stream")];
    let description = "The events of a prediction, for everybody who was given this URL";
    let parameters = [in_path("name"), header("Last-Event-ID", "Resume after this event")];
    operation("Stream Of Prediction", "v1_files_stream_get", description, &parameters, answers)
}

pub(super) fn schemas() -> Value {
    json!({
        "Problem": {
            "title": "Problem",
            "type": "object",
            "required": ["title", "detail", "status"],
            "properties": {
                "title": { "type": "string" },
                "detail": { "type": "string" },
                "status": { "type": "integer" },
                "invalid_fields": { "type": "array", "items": { "type": "object" } },
            },
        },
        "V1Prediction": prediction(),
        "V1Model": {
            "title": "V1Model",
            "type": "object",
            "required": ["url", "owner", "name", "visibility", "run_count", "latest_version"],
            "properties": {
                "url": { "type": "string" },
                "owner": { "type": "string" },
                "name": { "type": "string" },
                "description": { "type": "string" },
                "visibility": { "type": "string", "enum": ["public"] },
                "run_count": { "type": "integer" },
                "latest_version": { "allOf": [reference("V1Version")], "nullable": true },
            },
        },
        "V1Version": {
            "title": "V1Version",
            "type": "object",
            "required": ["id", "created_at", "cog_version", "openapi_schema"],
            "properties": {
                "id": { "type": "string" },
                "created_at": { "type": "string", "format": "date-time" },
                "cog_version": { "type": "string" },
                "openapi_schema": { "type": "object" },
            },
        },
        "V1File": {
            "title": "V1File",
            "type": "object",
            "required": ["id", "name", "content_type", "size", "etag", "checksums", "metadata", "created_at", "expires_at", "urls"],
            "properties": {
                "id": { "type": "string" },
                "name": { "type": "string" },
                "content_type": { "type": "string" },
                "size": { "type": "integer" },
                "etag": { "type": "string" },
                "checksums": { "type": "object" },
                "metadata": { "type": "object" },
                "created_at": { "type": "string", "format": "date-time" },
                "expires_at": { "type": "string", "format": "date-time" },
                "urls": { "type": "object" },
            },
        },
    })
}

fn prediction() -> Value {
    let time = json!({ "type": "string", "format": "date-time", "nullable": true });
    let text = json!({ "type": "string" });
    json!({
        "title": "V1Prediction",
        "type": "object",
        "required": ["id", "model", "version", "input", "output", "logs", "error", "status", "created_at", "metrics", "urls"],
        "properties": {
            "id": text,
            "model": text,
            "version": text,
            "input": { "type": "object" },
            "output": {
                "anyOf": [reference("Output"), { "type": "array", "items": reference("Output") }],
                "nullable": true,
            },
            "logs": text,
            "error": { "type": "string", "nullable": true },
            "status": { "type": "string", "enum": Status::ALL.map(Status::name) },
            "data_removed": { "type": "boolean" },
            "source": text,
            "created_at": { "type": "string", "format": "date-time" },
            "started_at": time,
            "completed_at": time,
            "deadline": time,
            "metrics": { "type": "object" },
            "urls": {
                "type": "object",
                "required": ["get", "cancel", "web", "stream"],
                "properties": { "get": text, "cancel": text, "web": text, "stream": text },
            },
        },
    })
}

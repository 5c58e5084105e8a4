//! The OpenAPI document: Cog's components and operations, and ours beside them.
//!
//! `/openapi.json` serves [`document`]; `openapi.yaml` at the root of the repository is [`yaml`], kept equal by a test.

use std::fmt::Write as _;

use prediction::Status;
use prediction::input::table;
use serde_json::{Map, Value, json};

use crate::http;

/// The document.
pub(crate) fn document() -> Value {
    json!({
        "openapi": "3.0.2",
        "info": {
            "title": "Cog",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "SyncDiffusion: a prompt in, a panorama out. Compatible with Replicate's Cog.",
        },
        "paths": guarded(paths()),
        "components": {
            "schemas": schemas(),
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "description": "One of `--api-token`, if the server has any" },
            },
        },
    })
}

/// Adds to the operations that need a token, where the server has any, that they do.
fn guarded(mut paths: Value) -> Value {
    let operations = paths.as_object_mut().into_iter().flatten().filter(|(path, _)| !http::is_open(path));
    for operation in operations.filter_map(|(_, methods)| methods.as_object_mut()).flat_map(Map::values_mut) {
        let (status, refused) =
            answer("401", "A token is needed; this one is none, or there is none", &reference("Detail"));
        operation["responses"][status] = refused;
        operation["security"] = json!([{}, { "token": [] }]);
    }
    paths
}

fn paths() -> Value {
    json!({
        "/": { "get": operation("Root", "root__get", "Where everything is; the playground for browsers", &[], &[ok(&json!({}))]) },
        "/docs": { "get": page("Docs", "docs_docs_get") },
        "/playground": { "get": page("Playground", "playground_playground_get") },
        "/openapi.json": {
            "get": operation("OpenAPI", "openapi_openapi_json_get", "This document", &[], &[ok(&json!({ "type": "object" }))]),
        },
        "/health-check": {
            "get": operation("Healthcheck", "healthcheck_health_check_get", "How the server is; always 200", &[], &[ok(&reference("Health"))]),
        },
        "/ready": {
            "get": operation("Ready", "ready_ready_get", "Whether predictions are taken", &[],
                &[ok(&reference("Health")), answer("503", "Not now", &reference("Health"))]),
        },
        "/metrics": {
            "get": operation("Metrics", "metrics_metrics_get", "Figures for Prometheus", &[],
                &[("200".to_owned(), json!({ "description": "Successful Response", "content": { "text/plain": { "schema": { "type": "string" } } } }))]),
        },
        "/live": {
            "get": operation("Live", "live_live_get", "Whether a restart is not needed", &[],
                &[ok(&reference("Health")), answer("503", "Only a restart can help", &reference("Health"))]),
        },
        "/shutdown": {
            "post": operation("Shutdown", "start_shutdown_shutdown_post", "Stop the server as SIGTERM does", &[], &[ok(&json!({}))]),
        },
        "/predictions": { "post": create(false), "get": list() },
        "/predictions/{prediction_id}": {
            "put": create(true),
            "get": operation("Get", "get_predictions__prediction_id__get", "A prediction as it is now", &[id()],
                &[ok(&reference("PredictionResponse")), unknown()]),
            "delete": operation("Delete", "delete_predictions__prediction_id__delete", "Remove a prediction that has ended, with its picture", &[id()],
                &[("204".to_owned(), json!({ "description": "Removed" })), unknown(), answer("409", "It has not ended", &reference("Detail"))]),
        },
        "/predictions/{prediction_id}/cancel": {
            "post": operation("Cancel", "cancel_predictions__prediction_id__cancel_post", "Stop a prediction", &[id()],
                &[ok(&json!({})), answer("404", "It does not exist or has ended", &json!({})), answer("422", "Validation Error", &reference("HTTPValidationError"))]),
        },
        "/predictions/{prediction_id}/output": {
            "get": operation("Output", "output_predictions__prediction_id__output_get", "The picture as a file", &[id()], &[
                png("200", "Successful Response"),
                unknown(),
            ]),
        },
        "/files/{name}": {
            "get": operation("File", "file_files__name__get", "The picture of a prediction whose output is this URL (`--output files`)",
                &[json!({ "in": "path", "name": "name", "required": true, "schema": { "title": "Name", "type": "string" } }), header("Range", "Only these bytes")],
                &[
                    png("200", "Successful Response"),
                    png("206", "The bytes that were asked for"),
                    ("304".to_owned(), json!({ "description": "It is what the client has" })),
                    answer("404", "There is no such picture, or it is not kept any more", &reference("Detail")),
                    ("416".to_owned(), json!({ "description": "It has no such bytes" })),
                ]),
        },
        "/v1/webhooks/default/secret": {
            "get": operation("Webhook Secret", "webhooks_default_secret_get", "What webhooks are signed with, if the server shows it (`--show-webhook-secret`)", &[], &[
                ok(&json!({ "type": "object", "required": ["key"], "properties": { "key": { "type": "string" } } })),
                answer("404", "It is not shown", &reference("Detail")),
            ]),
        },
        "/predictions/{prediction_id}/stream": {
            "get": operation("Stream", "stream_predictions__prediction_id__stream_get", "Follow a prediction as server-sent events",
                &[id(), header("Last-Event-ID", "Resume after this event")],
                &[events(), ("204".to_owned(), json!({ "description": "There is nothing after that event" })), unknown()]),
        },
    })
}

/// POST `/predictions`, or PUT of an id.
fn create(put: bool) -> Value {
    let (summary, operation_id, description) = if put {
        (
            "Predict Idempotent",
            "predict_idempotent_predictions__prediction_id__put",
            "Run a prediction once, however often it is asked for",
        )
    } else {
        ("Predict", "predict_predictions_post", "Run a single prediction on the model")
    };
    let mut parameters = vec![
        header("Prefer", "`respond-async` answers at once; `wait=n` waits n seconds at most"),
        header("Cancel-After", "Give up after so long, such as `90` or `1m30s`; 5 seconds to 24 hours"),
    ];
    if put {
        parameters.insert(0, id());
    }
    let prediction = reference("PredictionResponse");
    let (mut status, mut done) = ok(&prediction);
    done["content"]["text/event-stream"] = json!({ "schema": {} });
    let answers = [
        (std::mem::take(&mut status), done),
        answer("202", "Accepted: it waits or runs", &prediction),
        answer("400", "The body is no JSON", &reference("Detail")),
        answer("408", "The body takes too long", &reference("Detail")),
        answer("409", "All workers are taken and there is no queue, or the id waits or runs", &reference("Refusal")),
        answer("413", "The body is too large", &reference("Detail")),
        answer("415", "The body is of another type", &reference("Detail")),
        answer("422", "Validation Error", &json!({ "anyOf": [reference("HTTPValidationError"), reference("Detail")] })),
        answer("429", "The queue is full; `Retry-After` says when to try again", &reference("Refusal")),
        answer("503", "No worker has loaded yet, or the server is stopping", &reference("Refusal")),
    ];
    let mut operation = operation(summary, operation_id, description, &parameters, &answers);
    operation["requestBody"] =
        json!({ "content": { "application/json": { "schema": reference("PredictionRequest") } } });
    operation["x-cog-streaming"] = true.into();
    operation
}

fn list() -> Value {
    let query = |name: &str, schema: Value| json!({ "in": "query", "name": name, "required": false, "schema": schema });
    let parameters = [
        query("cursor", json!({ "type": "string" })),
        query("status", reference("Status")),
        query("limit", json!({ "type": "integer", "minimum": 1, "maximum": 100, "default": 20 })),
    ];
    let answers = [
        ok(&reference("PredictionList")),
        answer("400", "A parameter cannot be read", &reference("Detail")),
        answer("422", "A parameter is not valid", &reference("Detail")),
    ];
    operation("List", "list_predictions_get", "Predictions, newest first", &parameters, &answers)
}

fn page(summary: &str, operation_id: &str) -> Value {
    let html =
        json!({ "description": "Successful Response", "content": { "text/html": { "schema": { "type": "string" } } } });
    operation(summary, operation_id, "A page for people", &[], &[("200".to_owned(), html)])
}

fn operation(summary: &str, id: &str, description: &str, parameters: &[Value], answers: &[(String, Value)]) -> Value {
    let answers: Map<String, Value> = answers.iter().cloned().collect();
    let mut operation =
        json!({ "summary": summary, "operationId": id, "description": description, "responses": answers });
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    operation
}

fn answer(status: &str, description: &str, schema: &Value) -> (String, Value) {
    (status.to_owned(), json!({ "description": description, "content": { "application/json": { "schema": schema } } }))
}

fn png(status: &str, description: &str) -> (String, Value) {
    let content = json!({ "image/png": { "schema": { "type": "string", "format": "binary" } } });
    (status.to_owned(), json!({ "description": description, "content": content }))
}

fn ok(schema: &Value) -> (String, Value) {
    answer("200", "Successful Response", schema)
}

fn unknown() -> (String, Value) {
    answer("404", "There is no such prediction", &reference("Detail"))
}

fn events() -> (String, Value) {
    // What a schema is of in a stream, its text or an event of it, this version of OpenAPI does not say.
    let content = json!({ "text/event-stream": { "schema": {} } });
    (
        "200".to_owned(),
        json!({ "description": "Events start, log, progress, metric, output, completed", "content": content }),
    )
}

fn id() -> Value {
    json!({ "in": "path", "name": "prediction_id", "required": true, "schema": { "title": "Prediction Id", "type": "string", "minLength": 1 } })
}

fn header(name: &str, description: &str) -> Value {
    json!({ "in": "header", "name": name, "required": false, "description": description, "schema": { "type": "string" } })
}

fn reference(component: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{component}") })
}

fn schemas() -> Value {
    let text = |title: &str| json!({ "title": title, "type": "string" });
    let optional = |title: &str| json!({ "title": title, "type": "string", "nullable": true });
    let time = |title: &str| json!({ "title": title, "type": "string", "format": "date-time", "nullable": true });
    json!({
        "Input": table::schema(),
        "Output": { "title": "Output", "type": "string", "format": "uri" },
        "Status": { "title": "Status", "description": "An enumeration.", "type": "string", "enum": Status::ALL.map(Status::name) },
        "PredictionRequest": {
            "title": "PredictionRequest",
            "type": "object",
            "properties": {
                "id": { "title": "Id", "type": "string", "maxLength": http::MOST_ID },
                "input": reference("Input"),
                "context": { "title": "Context", "type": "object", "additionalProperties": { "type": "string" } },
                "output_file_prefix": { "title": "Output File Prefix", "type": "string", "format": "uri" },
                "webhook": { "title": "Webhook", "type": "string", "format": "uri" },
                "webhook_events_filter": {
                    "title": "Webhook Events Filter", "type": "array",
                    "items": { "type": "string", "enum": ["start", "output", "logs", "completed"] },
                },
            },
        },
        "PredictionResponse": {
            "title": "PredictionResponse",
            "type": "object",
            "properties": {
                "completed_at": time("Completed At"),
                "created_at": { "title": "Created At", "type": "string", "format": "date-time" },
                "error": optional("Error"),
                "id": text("Id"),
                "input": reference("Input"),
                "logs": text("Logs"),
                "metrics": { "title": "Metrics", "type": "object" },
                "model": optional("Model"),
                "output": { "allOf": [reference("Output")], "nullable": true },
                "started_at": time("Started At"),
                "status": { "title": "Status", "type": "string" },
                "urls": { "title": "Urls", "type": "object", "properties": { "cancel": text("Cancel"), "get": text("Get"), "stream": text("Stream") } },
                "version": optional("Version"),
            },
        },
        "PredictionList": {
            "title": "PredictionList", "type": "object", "required": ["next", "previous", "results"],
            "properties": { "next": optional("Next"), "previous": optional("Previous"), "results": { "type": "array", "items": reference("PredictionResponse") } },
        },
        "Health": {
            "title": "Health", "type": "object", "required": ["status", "setup", "version"],
            "properties": {
                "status": { "type": "string", "enum": ["STARTING", "READY", "BUSY", "SETUP_FAILED", "DEFUNCT", "UNHEALTHY"] },
                "setup": { "type": "object" }, "version": { "type": "object" }, "user_healthcheck_error": { "type": "string" },
            },
        },
        "Detail": { "title": "Detail", "type": "object", "required": ["detail"], "properties": { "detail": { "type": "string" } } },
        "Refusal": { "title": "Refusal", "type": "object", "required": ["error", "status"], "properties": { "error": { "type": "string" }, "status": { "type": "string" } } },
        "HTTPValidationError": {
            "title": "HTTPValidationError", "type": "object",
            "properties": { "detail": { "title": "Detail", "type": "array", "items": reference("ValidationError") } },
        },
        "ValidationError": {
            "title": "ValidationError", "type": "object", "required": ["loc", "msg", "type"],
            "properties": {
                "loc": { "title": "Location", "type": "array", "items": { "anyOf": [{ "type": "string" }, { "type": "integer" }] } },
                "msg": { "title": "Message", "type": "string" },
                "type": { "title": "Error Type", "type": "string" },
            },
        },
    })
}

/// The document as YAML.
pub(crate) fn yaml() -> String {
    let mut text =
        String::from("# Generated by `syncdiffusion openapi`; a test keeps it equal to what /openapi.json serves.\n");
    write(&mut text, &document(), 0);
    text
}

/// Writes a mapping or a sequence, one entry a line; scalars are JSON, which YAML reads.
fn write(text: &mut String, value: &Value, depth: usize) {
    let entries: Vec<(String, &Value)> = match value {
        Value::Object(map) => {
            map.iter().map(|(key, value)| (format!("{}:", Value::from(key.as_str())), value)).collect()
        }
        Value::Array(list) => list.iter().map(|value| ("-".to_owned(), value)).collect(),
        _ => Vec::new(),
    };
    for (lead, value) in entries {
        let _ = write!(text, "{:depth$}{lead}", "");
        let empty = value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty);
        if (value.is_object() || value.is_array()) && !empty {
            text.push('\n');
            write(text, value, depth + 2);
        } else {
            let _ = writeln!(text, " {value}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_document_is_the_one_that_is_served() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../openapi.yaml");
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == yaml(),
            "openapi.yaml is not what the code says; run `syncdiffusion openapi > openapi.yaml`"
        );
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document();
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(document.pointer(reference).is_some(), "{reference}");
        }
    }
}

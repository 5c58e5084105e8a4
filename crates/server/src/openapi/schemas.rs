//! The components. Those of Cog are as Cog has them.

use prediction::Status;
use prediction::input::{Geometry, fitted, schema};
use serde_json::{Value, json};

use super::parts::reference;
use crate::http::body::MAX_ID;

pub(super) fn schemas(model: Option<Geometry>) -> Value {
    json!({
        "Input": schema::of(&fitted::table(model.unwrap_or_default(), None)),
        "Output": { "title": "Output", "type": "string", "format": "uri" },
        "Status": {
            "title": "Status",
            "description": "An enumeration.",
            "type": "string",
            "enum": Status::ALL.map(Status::name),
        },
        "PredictionRequest": request(),
        "PredictionResponse": prediction(),
        "PredictionList": list(),
        "Usage": usage(),
        "Health": health(),
        "Detail": {
            "title": "Detail",
            "type": "object",
            "required": ["detail"],
            "properties": { "detail": { "type": "string" } },
        },
        "Refusal": {
            "title": "Refusal",
            "type": "object",
            "required": ["error", "status"],
            "properties": { "error": { "type": "string" }, "status": { "type": "string" } },
        },
        "HTTPValidationError": {
            "title": "HTTPValidationError",
            "type": "object",
            "properties": {
                "detail": { "title": "Detail", "type": "array", "items": reference("ValidationError") },
            },
        },
        "ValidationError": validation_error(),
    })
}

fn text(title: &str) -> Value {
    json!({ "title": title, "type": "string" })
}

fn optional(title: &str) -> Value {
    json!({ "title": title, "type": "string", "nullable": true })
}

fn uri(title: &str) -> Value {
    json!({ "title": title, "type": "string", "format": "uri" })
}

fn time(title: &str) -> Value {
    json!({ "title": title, "type": "string", "format": "date-time", "nullable": true })
}

fn request() -> Value {
    json!({
        "title": "PredictionRequest",
        "type": "object",
        "properties": {
            "id": { "title": "Id", "type": "string", "maxLength": MAX_ID },
            "input": reference("Input"),
            "context": { "title": "Context", "type": "object", "additionalProperties": { "type": "string" } },
            "output_file_prefix": uri("Output File Prefix"),
            "webhook": uri("Webhook"),
            "webhook_events_filter": {
                "title": "Webhook Events Filter",
                "type": "array",
                "items": { "type": "string", "enum": ["start", "output", "logs", "completed"] },
            },
        },
    })
}

fn prediction() -> Value {
    let urls = json!({ "cancel": text("Cancel"), "get": text("Get"), "stream": text("Stream") });
    json!({
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
            "output": {
                "anyOf": [reference("Output"), { "type": "array", "items": reference("Output") }],
                "description": "A list where `num_outputs` is more than 1",
                "nullable": true,
            },
            "started_at": time("Started At"),
            "status": { "title": "Status", "type": "string" },
            "urls": { "title": "Urls", "type": "object", "properties": urls },
            "version": optional("Version"),
        },
    })
}

fn list() -> Value {
    json!({
        "title": "PredictionList",
        "type": "object",
        "required": ["next", "previous", "results"],
        "properties": {
            "next": optional("Next"),
            "previous": optional("Previous"),
            "results": { "type": "array", "items": reference("PredictionResponse") },
        },
    })
}

fn usage() -> Value {
    let count = json!({ "type": "integer", "minimum": 0 });
    let sum = json!({ "type": "number", "minimum": 0 });
    let one = json!({
        "type": "object",
        "required": ["name", "predictions", "succeeded", "megapixels", "seconds"],
        "properties": {
            "name": optional("Name"),
            "predictions": count,
            "succeeded": count,
            "megapixels": sum,
            "seconds": sum,
        },
    });
    let list = json!({ "type": "array", "items": one });
    json!({ "title": "Usage", "type": "object", "required": ["usage"], "properties": { "usage": list } })
}

fn health() -> Value {
    let states = ["STARTING", "READY", "BUSY", "SETUP_FAILED", "DEFUNCT", "UNHEALTHY"];
    json!({
        "title": "Health",
        "type": "object",
        "required": ["status", "setup", "version"],
        "properties": {
            "status": { "type": "string", "enum": states },
            "setup": { "type": "object" },
            "version": { "type": "object" },
            "user_healthcheck_error": { "type": "string" },
        },
    })
}

fn validation_error() -> Value {
    let place = json!({ "anyOf": [{ "type": "string" }, { "type": "integer" }] });
    json!({
        "title": "ValidationError",
        "type": "object",
        "required": ["loc", "msg", "type"],
        "properties": {
            "loc": { "title": "Location", "type": "array", "items": place },
            "msg": { "title": "Message", "type": "string" },
            "type": { "title": "Error Type", "type": "string" },
        },
    })
}

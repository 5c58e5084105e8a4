//! What operations are made of.

use serde_json::{Map, Value, json};

/// A response: its status, and its description with a schema.
pub(super) type Answer = (String, Value);

pub(super) fn operation(
    summary: &str,
    id: &str,
    description: &str,
    parameters: &[Value],
    answers: impl IntoIterator<Item = Answer>,
) -> Value {
    let answers: Map<String, Value> = answers.into_iter().collect();
    let mut operation =
        json!({ "summary": summary, "operationId": id, "description": description, "responses": answers });
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    operation
}

/// A response of JSON.
pub(super) fn answer(status: &str, description: &str, schema: &Value) -> Answer {
    content(status, description, "application/json", schema)
}

/// A response of any type.
pub(super) fn content(status: &str, description: &str, kind: &str, schema: &Value) -> Answer {
    (status.to_owned(), json!({ "description": description, "content": { kind: { "schema": schema } } }))
}

/// A response without a body.
pub(super) fn empty(status: &str, description: &str) -> Answer {
    (status.to_owned(), json!({ "description": description }))
}

pub(super) fn ok(schema: &Value) -> Answer {
    answer("200", "Successful Response", schema)
}

/// A response of a picture in any of its formats.
pub(super) fn picture(status: &str, description: &str) -> Answer {
    let file = json!({ "schema": { "type": "string", "format": "binary" } });
    let content = json!({ "image/png": file, "image/jpeg": file, "image/webp": file });
    (status.to_owned(), json!({ "description": description, "content": content }))
}

pub(super) fn unknown() -> Answer {
    answer("404", "There is no such prediction", &reference("Detail"))
}

/// What was asked for could not be stored, and was not done.
pub(super) fn unwritten() -> Answer {
    answer("503", "The disk cannot be written; nothing was done", &reference("Refusal"))
}

/// What identifies a prediction in a path.
pub(super) fn id() -> Value {
    let schema = json!({ "title": "Prediction Id", "type": "string", "minLength": 1 });
    json!({ "in": "path", "name": "prediction_id", "required": true, "schema": schema })
}

pub(super) fn header(name: &str, description: &str) -> Value {
    let schema = json!({ "type": "string" });
    json!({ "in": "header", "name": name, "required": false, "description": description, "schema": schema })
}

pub(super) fn query(name: &str, schema: &Value) -> Value {
    json!({ "in": "query", "name": name, "required": false, "schema": schema })
}

pub(super) fn reference(component: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{component}") })
}

//! The OpenAPI document: Cog's components and operations, and ours beside them.
//!
//! `/openapi.json` serves [`document`]; `openapi.yaml` at the root of the repository is [`as_yaml`].

mod a1111;
mod openai;
mod parts;
mod paths;
mod replicate;
mod schemas;
mod yaml;

use prediction::input::Geometry;
use serde_json::{Value, json};

use crate::http::auth;
use parts::{answer, reference};
use replicate::problem;

/// The document of Stable Diffusion 2 base.
pub(crate) fn document() -> Value {
    document_of(None)
}

/// The document of a model, with its defaults and bounds.
pub(crate) fn document_of(model: Option<Geometry>) -> Value {
    json!({
        "openapi": "3.0.2",
        "info": {
            "title": "Cog",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "SyncDiffusion: a prompt in, a panorama out. Compatible with Replicate's Cog.",
        },
        "paths": guarded(all([paths::paths(), replicate::paths(), openai::paths(), a1111::paths()])),
        "components": {
            "schemas": all([
                schemas::schemas(model),
                replicate::schemas(),
                openai::schemas().into(),
                a1111::schemas().into(),
            ]),
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "One of `--api-token`, if the server has any",
                },
            },
        },
    })
}

/// The entries of several objects.
fn all<const N: usize>(parts: [Value; N]) -> Value {
    let entries = parts.into_iter().filter_map(|part| match part {
        Value::Object(entries) => Some(entries),
        _ => None,
    });
    Value::Object(entries.flatten().collect())
}

/// The document as YAML.
pub(crate) fn as_yaml() -> String {
    yaml::write(&document())
}

/// Adds to the operations that need a token, if the server has any, that they do.
fn guarded(mut paths: Value) -> Value {
    let guarded = paths.as_object_mut().into_iter().flatten().filter(|(path, _)| !auth::is_open(path));
    let operations = guarded.flat_map(|(path, methods)| {
        methods.as_object_mut().into_iter().flatten().map(|(method, operation)| (path.as_str(), method, operation))
    });
    for (path, _, operation) in operations.filter(|(_, method, _)| *method != "options") {
        let refused = "Missing or invalid API token";
        let (status, refused) = if path.starts_with("/v1/") {
            problem("401", refused)
        } else {
            answer("401", refused, &reference("Detail"))
        };
        // Some rooms have words of their own for it.
        if operation["responses"].get(&status).is_none() {
            operation["responses"][status] = refused;
        }
        operation["security"] = json!([{}, { "token": [] }]);
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document();
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(document.pointer(reference).is_some(), "{reference}");
        }
    }
}

//! The OpenAPI document: Cog's components and operations, and ours beside them.
//!
//! `/openapi.json` serves [`document`]; `openapi.yaml` at the root of the repository is [`as_yaml`].

mod parts;
mod paths;
mod replicate;
mod schemas;
mod yaml;

use prediction::input::Geometry;
use serde_json::{Map, Value, json};

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
        "paths": guarded(joined(paths::paths(), replicate::paths())),
        "components": {
            "schemas": joined(schemas::schemas(model), replicate::schemas()),
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

/// The document as YAML.
pub(crate) fn as_yaml() -> String {
    yaml::write(&document())
}

/// The entries of both objects, in the order of their names.
fn joined(mut one: Value, other: Value) -> Value {
    if let (Value::Object(one), Value::Object(other)) = (&mut one, other) {
        one.extend(other);
    }
    one
}

/// Adds to the operations that need a token, if the server has any, that they do.
fn guarded(mut paths: Value) -> Value {
    let guarded = paths.as_object_mut().into_iter().flatten().filter(|(path, _)| !auth::is_open(path));
    let operations = guarded.flat_map(|(path, methods)| {
        methods.as_object_mut().into_iter().flat_map(Map::values_mut).map(|operation| (path.as_str(), operation))
    });
    for (path, operation) in operations {
        let refused = "Missing or invalid API token";
        let (status, refused) = if path.starts_with("/v1/") {
            problem("401", refused)
        } else {
            answer("401", refused, &reference("Detail"))
        };
        operation["responses"][status] = refused;
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

//! Errors as `application/problem+json`, as Replicate has them: `detail` is a text, and inputs that are not valid are
//! listed in `invalid_fields`.

use axum::Json;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use prediction::input::validate::Detail;
use prediction::service::Refused;
use prediction::store::StoreError;
use serde_json::{Value, json};

use crate::http::error::{Cause, Error};

/// Tells the official clients whether to try again.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// Gives the errors of these paths their form, those of what every request passes (tokens, limits, unknown paths), too.
pub(crate) async fn dress(request: Request, next: Next) -> Response {
    let is_ours = request.uri().path().starts_with("/v1/");
    let is_shared = request.uri().path() == "/v1/models";
    let response = next.run(request).await;
    if !is_ours || !(response.status().is_client_error() || response.status().is_server_error()) {
        return response;
    }
    // What has no cause has its form already.
    let Some(Cause(error)) = response.extensions().get().cloned() else { return response };
    write(response, &error, is_shared)
}

/// Puts a problem in the place of an error.
fn write(response: Response, error: &Error, is_shared: bool) -> Response {
    let (status, mut body) = problem(error);
    if is_shared {
        body["error"] = as_openai(error, status);
    }
    body["status"] = status.as_u16().into();
    if body.get("title").is_none() {
        body["title"] = status.canonical_reason().unwrap_or("Error").into();
    }
    let (mut parts, _) = response.into_parts();
    parts.status = status;
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if status == StatusCode::INTERNAL_SERVER_ERROR {
        parts.headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    if let Some(after) = error.retry_after() {
        parts.headers.insert(header::RETRY_AFTER, after.into());
    }
    let (_, body) = Json(body).into_response().into_parts();
    Response::from_parts(parts, body)
}

/// Status and body of an error.
fn problem(error: &Error) -> (StatusCode, Value) {
    let title = match error {
        Error::Unauthorized(_) => Some("Unauthenticated"),
        Error::Version => Some("Invalid version or not permitted"),
        Error::Invalid(_) => Some("Input validation failed"),
        _ => None,
    };
    let mut body = match error {
        Error::Invalid(details) => invalid(details),
        other => json!({ "detail": other.text() }),
    };
    if let Some(title) = title {
        body["title"] = title.into();
    }
    let status = match error {
        // Clients take 409 for something that passes at once.
        Error::Refused(Refused::Busy) => StatusCode::TOO_MANY_REQUESTS,
        Error::Store(StoreError::Corrupt(_)) => StatusCode::INTERNAL_SERVER_ERROR,
        other => other.status(),
    };
    (status, body)
}

/// The same for clients of OpenAI, which ask for the list of models, too.
fn as_openai(error: &Error, status: StatusCode) -> Value {
    let (kind, code) = match status {
        StatusCode::UNAUTHORIZED => ("invalid_request_error", Some("invalid_api_key")),
        status if status.is_server_error() => ("server_error", None),
        _ => ("invalid_request_error", None),
    };
    json!({ "message": error.text(), "type": kind, "param": null, "code": code })
}

/// All that is wrong with a body, a line for each.
fn invalid(details: &[Detail]) -> Value {
    let fields: Vec<Value> = details.iter().map(field).collect();
    let line = |field: &Value| {
        let name = field["field"].as_str().filter(|name| !name.is_empty());
        let text = field["description"].as_str().unwrap_or_default();
        name.map_or_else(|| format!("- {text}\n"), |name| format!("- {name}: {text}\n"))
    };
    let detail: String = fields.iter().map(line).collect();
    json!({ "detail": detail, "invalid_fields": fields })
}

fn field(Detail { loc, msg, kind }: &Detail) -> Value {
    let path = match loc.as_slice() {
        [first, rest @ ..] if first == "body" => rest,
        all => all,
    };
    let within =
        |path: &[String]| path.iter().filter(|name| *name != "__root__").cloned().collect::<Vec<_>>().join(".");
    match (kind.as_str(), path) {
        ("value_error.missing", [above @ .., name]) => {
            json!({ "type": "required", "field": within(above), "description": format!("{name} is required") })
        }
        ("value_error", path) => json!({ "type": class(msg), "field": within(path), "description": msg }),
        (kind, path) => json!({ "type": kind, "field": within(path), "description": msg }),
    }
}

/// The class of an error by the words of the validator.
fn class(message: &str) -> &'static str {
    [
        ("greater than the maximum", "number_lte"),
        ("less than the minimum", "number_gte"),
        ("is not of type", "invalid_type"),
        ("is not one of", "enum"),
    ]
    .into_iter()
    .find(|(words, _)| message.contains(words))
    .map_or("invalid", |(_, class)| class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_listed_with_what_is_wrong_with_them() {
        let errors =
            prediction::input::parse(&json!({"width": 99_999, "seed": "x", "scheduler": "y"}), None).unwrap_err();
        let details = errors.iter().map(prediction::input::Invalid::detail).collect();
        let (status, body) = problem(&Error::Invalid(details));
        assert_eq!((status.as_u16(), &body["title"]), (422, &json!("Input validation failed")));
        let found: Vec<_> = body["invalid_fields"]
            .as_array()
            .unwrap()
            .iter()
            .map(|is| (is["type"].as_str().unwrap(), is["field"].as_str().unwrap()))
            .collect();
        for expected in [
            ("number_lte", "input.width"),
            ("invalid_type", "input.seed"),
            ("enum", "input.scheduler"),
            ("required", "input"),
        ] {
            assert!(found.contains(&expected), "{expected:?} of {found:?}");
        }
        assert!(body["detail"].as_str().unwrap().ends_with("- input: prompt is required\n"), "{body}");
        assert!(
            body["detail"].as_str().unwrap().contains("- input.width: 99999 is greater than the maximum of"),
            "{body}"
        );
    }

    #[test]
    fn every_error_has_a_detail() {
        for error in [
            Error::Version,
            Error::NoFile,
            Error::Refused(Refused::Busy),
            Error::Refused(Refused::NotReady),
            Error::Unauthorized("x"),
            Error::Store(StoreError::Closed),
            Error::invalid("version", "y"),
        ] {
            let (_, body) = problem(&error);
            assert!(body["detail"].as_str().is_some_and(|text| !text.is_empty()), "{error:?}: {body}");
        }
        assert_eq!(problem(&Error::Refused(Refused::Busy)).0, StatusCode::TOO_MANY_REQUESTS);
    }

    #[test]
    fn what_passes_says_when_to_try_again() {
        for (error, status, after) in [
            (Error::Refused(Refused::Busy), 429, Some("5")),
            (Error::Refused(Refused::Full { after: std::time::Duration::from_secs(90) }), 429, Some("90")),
            (Error::Refused(Refused::Closing), 503, Some("5")),
            (Error::Refused(Refused::NoWorker("it crashed".to_owned())), 503, None),
            (Error::FilesFull, 503, None),
            (Error::NoFile, 404, None),
        ] {
            let response = error.into_response();
            let Cause(error) = response.extensions().get().cloned().unwrap();
            let written = write(response, &error, false);
            let told = written.headers().get(header::RETRY_AFTER).map(|after| after.to_str().unwrap());
            assert_eq!((written.status().as_u16(), told), (status, after), "{error:?}");
        }
    }
}

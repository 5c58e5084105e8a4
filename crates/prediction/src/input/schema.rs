//! The schema of the inputs, as Cog writes it.

use serde_json::{Map, Value, json};

use super::table::{Default, Field, Kind};

/// The component `Input` of the OpenAPI document, as Cog writes it, of [`crate::input::TABLE`] or that of a model.
pub fn of(table: &[Field]) -> Value {
    let properties: Map<String, Value> =
        table.iter().enumerate().map(|(order, field)| (field.name.to_owned(), property(field, order))).collect();
    let required: Vec<&str> =
        table.iter().filter(|field| field.default == Default::Required).map(|field| field.name).collect();
    json!({ "title": "Input", "type": "object", "required": required, "properties": properties })
}

/// The property of the schema.
fn property(field: &Field, order: usize) -> Value {
    let mut property = Map::new();
    property.insert("type".to_owned(), field.kind.name().into());
    property.insert("title".to_owned(), field.title().into());
    property.insert("description".to_owned(), field.description.into());
    property.insert("x-order".to_owned(), order.into());
    if let Kind::Choice(words) = field.kind {
        property.insert("enum".to_owned(), words.into());
    }
    let (minimum, maximum) = field.kind.bounds();
    match field.kind {
        Kind::Texts { maximum, .. } => {
            property.insert("items".to_owned(), json!({ "type": "string" }));
            property.insert("maxItems".to_owned(), maximum.into());
        }
        // By which clients know that a file may be uploaded.
        Kind::Picture => _ = property.insert("format".to_owned(), "uri".into()),
        _ => {}
    }
    let default = field.default.value().filter(|default| !default.is_null());
    if field.default == Default::Nothing {
        property.insert("nullable".to_owned(), true.into());
    }
    let optional = [("default", default), ("minimum", minimum), ("maximum", maximum)];
    property.extend(optional.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
    Value::Object(property)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::TABLE;

    #[test]
    fn the_schema_is_that_of_the_hosted_model() {
        let schema = of(&TABLE);
        assert_eq!(schema["required"], json!(["prompt"]));
        assert_eq!(
            schema["properties"]["guidance_scale"],
            json!({"default": 7.5, "description": "Scale of the guidance image", "maximum": 20, "minimum": 0,
                "title": "Guidance Scale", "type": "number", "x-order": 4})
        );
        assert_eq!(
            schema["properties"]["sync_weight"].to_string(),
            concat!(
                r#"{"default":20,"description":"Weight of the SyncDiffusion","maximum":30,"minimum":0,"#,
                r#""title":"Sync Weight","type":"number","x-order":5}"#
            )
        );
        assert_eq!(
            schema["properties"]["prompt"],
            json!({"description": "Prompt to generate from", "title": "Prompt", "type": "string", "x-order": 0})
        );
        let blend = &schema["properties"]["blend"];
        assert_eq!(
            (&blend["type"], &blend["enum"], &blend["default"], &blend["x-order"]),
            (&json!("string"), &json!(["even", "smooth"]), &json!("even"), &json!(13))
        );
    }

    /// As Cog's schema has files, lists and what may be left out.
    #[test]
    fn pictures_are_uris_and_texts_are_arrays() {
        let schema = of(&TABLE);
        let property = |name: &str| schema["properties"][name].clone();
        assert_eq!(
            property("image"),
            json!({"description": "Picture that becomes part of the panorama, which is drawn around it", "format": "uri",
                "nullable": true, "title": "Image", "type": "string", "x-order": 20})
        );
        let prompts = property("prompts");
        assert_eq!(
            (&prompts["type"], &prompts["items"], &prompts["default"], &prompts["maxItems"]),
            (&json!("array"), &json!({"type": "string"}), &json!([]), &json!(10))
        );
        let strength = property("strength");
        assert_eq!(
            (&strength["nullable"], &strength["maximum"], strength.get("default")),
            (&json!(true), &json!(1), None)
        );
    }
}

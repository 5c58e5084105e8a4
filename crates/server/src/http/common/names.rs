//! Names that a request has for inputs, for its errors: whoever sent `cfg_scale` is not told of `guidance_scale`.

use prediction::input::Invalid;

use crate::http::error::Error;

/// The inputs that a request names in its own way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names(Vec<Name>);

#[derive(Clone, Debug)]
struct Name {
    /// The input.
    input: &'static str,
    /// The field of the request.
    field: &'static str,
    /// What a message says instead of the input.
    words: String,
}

impl Names {
    /// An input is this field of the request.
    pub(crate) fn add(&mut self, input: &'static str, field: &'static str) {
        self.0.push(Name { input, field, words: format!("`{field}`") });
    }

    /// An input is part of this field, which has others, too.
    pub(crate) fn add_part(&mut self, input: &'static str, field: &'static str) {
        self.0.push(Name { input, field, words: format!("{input} in `{field}`") });
    }

    fn field<'a>(&self, input: &'a str) -> &'a str {
        self.0.iter().find(|name| name.input == input).map_or(input, |name| name.field)
    }

    fn message(&self, message: &str) -> String {
        let quoted = |text: String, name: &Name| text.replace(&format!("`{}`", name.input), &name.words);
        self.0.iter().fold(message.to_owned(), quoted)
    }

    /// Errors of inputs in the names of the request.
    pub(crate) fn invalid(&self, errors: Vec<Invalid>) -> Vec<Invalid> {
        let told = |Invalid { field, message, kind }: Invalid| Invalid {
            field: self.field(&field).to_owned(),
            message: self.message(&message),
            kind,
        };
        errors.into_iter().map(told).collect()
    }

    /// An error in the names of the request, if it is of its inputs.
    pub(crate) fn error(&self, error: Error) -> Error {
        let Error::Invalid(mut details) = error else { return error };
        for detail in &mut details {
            if let Some(last) = detail.loc.last_mut() {
                *last = self.field(last).to_owned();
            }
            detail.msg = self.message(&detail.msg);
        }
        Error::Invalid(details)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_names_of_the_request() {
        let mut names = Names::default();
        names.add("guidance_scale", "cfg_scale");
        names.add_part("width", "size");
        let invalid = |field: &str, message: &str| Invalid {
            field: field.to_owned(),
            message: message.to_owned(),
            kind: "value_error",
        };
        let errors = vec![
            invalid("guidance_scale", "30 is too much of `guidance_scale`"),
            invalid("image", "choose a `width` of at least 8"),
            invalid("width", "9 is not enough"),
        ];
        let told = vec![
            invalid("cfg_scale", "30 is too much of `cfg_scale`"),
            invalid("image", "choose a width in `size` of at least 8"),
            invalid("size", "9 is not enough"),
        ];
        let Error::Invalid(details) = names.error(Error::Invalid(errors.iter().map(Invalid::detail).collect())) else {
            panic!("it is of inputs")
        };
        assert_eq!(details, told.iter().map(Invalid::detail).collect::<Vec<_>>());
        assert_eq!(names.invalid(errors), told);
    }
}

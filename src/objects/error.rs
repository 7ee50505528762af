//! One thing wrong with one field, worded as Kubernetes words it.

use serde_json::Value;

/// What is wrong, as `Status.details.causes[].reason` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Required,
    Invalid,
    NotSupported,
    NotFound,
    Forbidden,
    Duplicate,
    TooLong,
    TooMany,
    TypeInvalid,
}

impl Reason {
    /// The cause's reason: `FieldValueRequired`.
    pub fn cause(self) -> &'static str {
        match self {
            Reason::Required => "FieldValueRequired",
            Reason::Invalid => "FieldValueInvalid",
            Reason::NotSupported => "FieldValueNotSupported",
            Reason::NotFound => "FieldValueNotFound",
            Reason::Forbidden => "FieldValueForbidden",
            Reason::Duplicate => "FieldValueDuplicate",
            Reason::TooLong => "FieldValueTooLong",
            Reason::TooMany => "FieldValueTooMany",
            Reason::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Reason::Required => "Required value",
            Reason::Invalid | Reason::TypeInvalid => "Invalid value",
            Reason::NotSupported => "Unsupported value",
            Reason::NotFound => "Not found",
            Reason::Forbidden => "Forbidden",
            Reason::Duplicate => "Duplicate value",
            Reason::TooLong => "Too long",
            Reason::TooMany => "Too many",
        }
    }
}

/// One error of validation or decoding. Prints as `spec.replicas: Invalid value: -1: must be …`.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// The path: `spec.containers[0].image`. Empty when the whole object is meant.
    pub field: String,
    pub reason: Reason,
    /// The detail behind the reason; may be empty.
    pub message: String,
    /// The offending value, where the reason shows one.
    pub value: Option<Box<Value>>,
}

impl FieldError {
    pub fn new(field: impl Into<String>, reason: Reason, message: impl Into<String>) -> Self {
        Self { field: field.into(), reason, message: message.into(), value: None }
    }

    pub fn with_value(mut self, value: Value) -> Self {
        self.value = Some(Box::new(value));
        self
    }

    /// The cause's message, without the field: `Invalid value: -1: must be greater than or equal to 0`.
    pub fn body(&self) -> String {
        let mut out = String::from(self.reason.text());
        let silent = matches!(self.reason, Reason::Required | Reason::Forbidden | Reason::TooLong);
        if let (false, Some(value)) = (silent, &self.value) {
            out.push_str(": ");
            out.push_str(&value.to_string());
        }
        if !self.message.is_empty() {
            out.push_str(": ");
            out.push_str(&self.message);
        }
        out
    }
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.field.is_empty() { f.write_str(&self.body()) } else { write!(f, "{}: {}", self.field, self.body()) }
    }
}

impl std::error::Error for FieldError {}

/// Several errors in one message: one as it is, more in brackets, equal ones once.
pub fn aggregate(errors: &[FieldError]) -> String {
    let mut lines: Vec<String> = Vec::new();
    for error in errors {
        let line = error.to_string();
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    match lines.len() {
        1 => lines.remove(0),
        _ => format!("[{}]", lines.join(", ")),
    }
}

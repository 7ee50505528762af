//! Which names, label keys and values Kubernetes accepts, and how it words a refusal. Each check returns its messages;
//! none means good.

use crate::{At, Errors};

const LABEL_MAX: usize = 63;
const SUBDOMAIN_MAX: usize = 253;
/// Of all annotations of one object together.
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const WILDCARD: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";

fn too_long(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

fn lower(c: u8) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(&first), Some(&last)) => lower(first) && lower(last) && bytes.iter().all(|&c| lower(c) || c == b'-'),
        _ => false,
    }
}

/// Letters, digits, `-`, `_` and `.`, beginning and ending with a letter or digit.
fn is_name_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            first.is_ascii_alphanumeric()
                && last.is_ascii_alphanumeric()
                && bytes.iter().all(|&c| c.is_ascii_alphanumeric() || b"-_.".contains(&c))
        }
        _ => false,
    }
}

/// A DNS-1123 subdomain: the name of most objects.
pub fn subdomain(text: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        messages.push(too_long(SUBDOMAIN_MAX));
    }
    if !text.split('.').all(is_label) {
        messages.push(SUBDOMAIN.to_owned());
    }
    messages
}

/// A DNS-1123 label: the name of a Namespace or a container.
pub fn label(text: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if text.len() > LABEL_MAX {
        messages.push(too_long(LABEL_MAX));
    }
    if !is_label(text) {
        messages.push(LABEL.to_owned());
    }
    messages
}

/// A DNS-1035 label: the name of a Service.
pub fn label_1035(text: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if text.len() > LABEL_MAX {
        messages.push(too_long(LABEL_MAX));
    }
    if !is_label(text) || !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        messages.push(LABEL_1035.to_owned());
    }
    messages
}

/// A label or annotation key: `[prefix/]name`.
pub fn qualified_name(text: &str) -> Vec<String> {
    let mut messages = Vec::new();
    let parts: Vec<&str> = text.split('/').collect();
    let name = match parts.as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                messages.push("prefix part must be non-empty".to_owned());
            } else {
                messages.extend(subdomain(prefix).into_iter().map(|m| format!("prefix part {m}")));
            }
            *name
        }
        _ => {
            return vec![format!(
                "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        messages.push("name part must be non-empty".to_owned());
    } else if name.len() > LABEL_MAX {
        messages.push(format!("name part {}", too_long(LABEL_MAX)));
    }
    if !is_name_part(name) {
        messages.push(QUALIFIED.to_owned());
    }
    messages
}

pub fn label_value(text: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if text.len() > LABEL_MAX {
        messages.push(too_long(LABEL_MAX));
    }
    if !text.is_empty() && !is_name_part(text) {
        messages.push(VALUE.to_owned());
    }
    messages
}

/// A key of a ConfigMap or Secret.
pub fn config_key(text: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        messages.push(too_long(SUBDOMAIN_MAX));
    }
    if text.is_empty() || !text.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c)) {
        messages.push(CONFIG_KEY.to_owned());
    }
    if text == "." {
        messages.push("must not be '.'".to_owned());
    } else if text == ".." {
        messages.push("must not be '..'".to_owned());
    } else if text.starts_with("..") {
        messages.push("must not start with '..'".to_owned());
    }
    messages
}

/// The name of an environment variable: printable ASCII without `=`.
pub fn env_name(text: &str) -> Vec<String> {
    if text.is_empty() || !text.bytes().all(|c| (0x20..0x7f).contains(&c) && c != b'=') {
        return vec![
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
                .to_owned(),
        ];
    }
    Vec::new()
}

/// A DNS-1123 subdomain whose first label may be `*`.
pub fn wildcard_subdomain(text: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        messages.push(too_long(SUBDOMAIN_MAX));
    }
    if !text.strip_prefix("*.").is_some_and(|rest| rest.split('.').all(is_label)) {
        messages.push(WILDCARD.to_owned());
    }
    messages
}

/// A name that only has to fit a path of the API: of RBAC's objects, `system:node`.
pub fn path_segment(text: &str) -> Vec<String> {
    if matches!(text, "." | "..") {
        return vec![format!("may not be '{text}'")];
    }
    ['/', '%'].iter().filter(|c| text.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
}

/// `example.com/some/path`.
pub fn domain_path(text: &str) -> Vec<String> {
    let (domain, path) = text.split_once('/').unwrap_or((text, ""));
    if domain.is_empty() || path.is_empty() {
        return vec!["must be a domain-prefixed path (such as \"acme.io/foo\")".to_owned()];
    }
    let mut messages = subdomain(domain);
    if !path.bytes().all(|c| c.is_ascii_alphanumeric() || b"/%:-._~!$&'()*+,;=@".contains(&c)) {
        messages.push(
            "invalid path (e.g. 'acme.io/foo', regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')"
                .to_owned(),
        );
    }
    messages
}

/// The name of a port (IANA_SVC_NAME).
pub fn port_name(text: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if text.len() > 15 {
        messages.push("must be no more than 15 characters".to_owned());
    }
    if text.is_empty() || !text.bytes().all(|c| lower(c) || c == b'-') {
        messages.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !text.bytes().any(|c| c.is_ascii_lowercase()) {
        messages.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        messages.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        messages.push("must not begin or end with a hyphen".to_owned());
    }
    messages
}

/// A port number.
pub fn port(number: i64) -> Vec<String> {
    if (1..=65535).contains(&number) { Vec::new() } else { vec!["must be between 1 and 65535, inclusive".to_owned()] }
}

pub fn percent(text: &str) -> Vec<String> {
    let digits = text.strip_suffix('%').unwrap_or("");
    if digits.is_empty() || !digits.bytes().all(|c| c.is_ascii_digit()) {
        return vec![PERCENT.to_owned()];
    }
    Vec::new()
}

/// The keys and values of a map of labels.
pub fn check_labels(at: &At<'_>, errors: &mut Errors) {
    for (key, value) in at.entries() {
        for message in qualified_name(key) {
            errors.push(at.invalid_value(key, message));
        }
        for message in label_value(value.text()) {
            errors.push(at.invalid_value(value.text(), message));
        }
    }
}

/// The keys and the size of a map of annotations.
pub fn check_annotations(at: &At<'_>, errors: &mut Errors) {
    let mut bytes = 0;
    for (key, value) in at.entries() {
        for message in qualified_name(&key.to_ascii_lowercase()) {
            errors.push(at.invalid_value(key, message));
        }
        bytes += key.len() + value.text().len();
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        errors.push(at.too_long(ANNOTATIONS_BYTES_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_names_pass() {
        type Check = fn(&str) -> Vec<String>;
        let cases: &[(Check, &str, bool)] = &[
            (subdomain, "web-1.example", true),
            (subdomain, "Web", false),
            (subdomain, "a..b", false),
            (label, "1-a", true),
            (label, "a.b", false),
            (label, "", false),
            (label_1035, "1-a", false),
            (label_1035, "a1", true),
            (qualified_name, "kubernetes.io/metadata.name", true),
            (qualified_name, "/x", false),
            (qualified_name, "a/b/c", false),
            (qualified_name, "Ab_c", true),
            (label_value, "", true),
            (label_value, "-x", false),
            (config_key, "a_b.c-D", true),
            (config_key, "", false),
            (config_key, "..x", false),
            (env_name, "A B", true),
            (env_name, "A=B", false),
            (wildcard_subdomain, "*.a.example", true),
            (wildcard_subdomain, "a.*", false),
            (path_segment, "system:node", true),
            (path_segment, "a/b", false),
            (path_segment, "..", false),
            (domain_path, "acme.io/foo/bar", true),
            (domain_path, "acme.io", false),
            (domain_path, "Acme/foo", false),
            (port_name, "http-1", true),
            (port_name, "80", false),
            (percent, "25%", true),
            (percent, "25", false),
        ];
        for (check, text, good) in cases {
            assert_eq!(check(text).is_empty(), *good, "{text}");
        }
        assert!(!label(&"a".repeat(64)).is_empty());
    }
}

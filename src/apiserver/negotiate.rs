//! Content negotiation: which form and encoding an answer takes, and how a request body is encoded.

use http::{HeaderMap, header};

use crate::status::{Failure, Result};

/// What the answer describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The object or list itself.
    Object,
    /// A `meta.k8s.io` Table of this version.
    Table(&'static str),
    /// PartialObjectMetadata, or the list of it.
    Metadata(&'static str),
}

/// How the answer is written. Watches are always JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Json,
    Yaml,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub form: Form,
    pub encoding: Encoding,
}

const SERVED: &str = "application/json, application/yaml";

/// The first clause that can be served, in the client's order of preference. `printable`: Tables and metadata are possible.
pub fn accepted(headers: &HeaderMap, printable: bool) -> Result<Accepted> {
    let text: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let text = text.join(",");
    if text.trim().is_empty() {
        return Ok(Accepted { form: Form::Object, encoding: Encoding::Json });
    }
    let mut clauses: Vec<Clause<'_>> = text.split(',').map(Clause::parse).collect();
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    clauses.iter().find_map(|clause| clause.serve(printable)).ok_or_else(|| Failure::not_acceptable(SERVED))
}

struct Clause<'a> {
    media: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    quality: f32,
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next().unwrap_or("");
        let parameters: Vec<_> = parts.filter_map(|part| part.split_once('=')).collect();
        let quality = parameters.iter().find(|(key, _)| *key == "q").and_then(|(_, q)| q.parse().ok()).unwrap_or(1.0);
        Self { media, parameters, quality }
    }

    fn parameter(&self, key: &str) -> &'a str {
        self.parameters.iter().find(|(k, _)| *k == key).map_or("", |(_, value)| *value)
    }

    fn serve(&self, printable: bool) -> Option<Accepted> {
        let encoding = match self.media {
            "application/json" | "*/*" | "application/*" => Encoding::Json,
            "application/yaml" => Encoding::Yaml,
            _ => return None,
        };
        let version = match (self.parameter("g"), self.parameter("v")) {
            ("meta.k8s.io", "v1") => Some("v1"),
            ("meta.k8s.io", "v1beta1") => Some("v1beta1"),
            _ => None,
        };
        let form = match (self.parameter("as"), version) {
            ("", _) => Form::Object,
            ("Table", Some(version)) if printable => Form::Table(version),
            ("PartialObjectMetadata" | "PartialObjectMetadataList", Some(version)) if printable => {
                Form::Metadata(version)
            }
            _ => return None,
        };
        Some(Accepted { form, encoding })
    }
}

/// How a request body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    Json,
    Yaml,
    Protobuf,
}

/// From the Content-Type; a missing one means JSON, since `kubectl scale` sends none.
pub fn body_kind(headers: &HeaderMap) -> Result<BodyKind> {
    match content_type(headers) {
        "" | "application/json" => Ok(BodyKind::Json),
        "application/yaml" => Ok(BodyKind::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(BodyKind::Protobuf),
        other => Err(Failure::unsupported_media(format!(
            "the body of the request was in an unknown format - accepted media types include: application/json, \
             application/yaml, application/vnd.kubernetes.protobuf, not {other:?}"
        ))),
    }
}

/// The media type without its parameters.
pub fn content_type(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    value.split(';').next().unwrap_or("").trim()
}

/// Whether the client takes gzip.
pub fn takes_gzip(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(Clause::parse)
        .any(|clause| clause.media == "gzip" && clause.quality > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_clients_ask_for() {
        const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        for (accept, printable, want) in [
            ("", true, Some((Form::Object, Encoding::Json))),
            ("application/json", true, Some((Form::Object, Encoding::Json))),
            ("application/json, */*", true, Some((Form::Object, Encoding::Json))),
            ("application/vnd.kubernetes.protobuf,application/json", true, Some((Form::Object, Encoding::Json))),
            ("application/vnd.kubernetes.protobuf", true, None),
            (TABLE, true, Some((Form::Table("v1"), Encoding::Json))),
            (TABLE, false, Some((Form::Object, Encoding::Json))),
            ("application/json;as=Table;v=v1;g=meta.k8s.io", false, None),
            ("application/json;as=Table;v=v2;g=meta.k8s.io", true, None),
            (
                "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
                true,
                Some((Form::Metadata("v1"), Encoding::Json)),
            ),
            ("application/yaml", true, Some((Form::Object, Encoding::Yaml))),
            ("application/yaml;q=0.5, application/json", true, Some((Form::Object, Encoding::Json))),
            ("text/html", true, None),
        ] {
            let mut headers = HeaderMap::new();
            if let (false, Ok(value)) = (accept.is_empty(), accept.parse()) {
                headers.insert(header::ACCEPT, value);
            }
            let got = accepted(&headers, printable).ok().map(|a| (a.form, a.encoding));
            assert_eq!(got, want, "{accept}");
        }
    }
}

//! Query parameters: of lists and watches, of writes, of deletions.

use http::{HeaderMap, Uri, header};
use objects::selector::{FieldSelector, LabelSelector};
use objects::{FieldError, Reason};
use serde_json::Value;
use state::Revision;

use crate::server::Call;
use crate::status::{Failure, Result};

const FIELD_MANAGER_MAX: usize = 128;

/// The parameters of a request, in order.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(uri: &Uri) -> Result<Self> {
        axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map(|query| Self(query.0))
            .map_err(|error| Failure::bad_request(format!("the query is malformed: {error}")))
    }

    /// The first value; "" where there is none.
    pub fn get(&self, key: &str) -> &str {
        self.find(key).unwrap_or("")
    }

    fn find(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    pub fn has(&self, key: &str) -> bool {
        self.find(key).is_some()
    }

    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// As Kubernetes reads a boolean: `1`, `true`, and the bare name.
    pub fn flag(&self, key: &str) -> bool {
        self.find(key).is_some_and(|value| !matches!(value, "false" | "0" | "False" | "FALSE" | "f" | "F"))
    }

    pub fn number<T: std::str::FromStr>(&self, key: &str) -> Result<Option<T>> {
        match self.get(key) {
            "" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|_| Failure::bad_request(format!("invalid value {text:?} of the parameter {key:?}"))),
        }
    }
}

/// Both selectors of a list, watch or deletion of a collection.
#[derive(Clone, Debug)]
pub struct Selectors {
    pub labels: LabelSelector,
    pub fields: FieldSelector,
}

impl Selectors {
    pub fn parse(call: &Call) -> Result<Self> {
        Self::of(call.kind, call.view, &call.query)
    }

    /// Of a kind, in the words of one of its versions.
    pub fn of(kind: &objects::Kind, view: Option<&objects::View>, query: &Query) -> Result<Self> {
        let labels = LabelSelector::parse(query.get("labelSelector"))
            .map_err(|error| Failure::bad_request(format!("unable to parse labelSelector: {error}")))?;
        let fields = FieldSelector::parse(query.get("fieldSelector"))
            .map_err(|error| Failure::bad_request(format!("unable to parse fieldSelector: {error}")))?;
        let fields = match view {
            Some(view) => fields.renamed(|field| view.stored_field(field)),
            None => fields,
        };
        kind.check_field_selector(&fields).map_err(Failure::bad_request)?;
        Ok(Self { labels, fields })
    }

    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub fn matches(&self, record: &state::Record) -> bool {
        (self.labels.is_empty() || self.labels.selects(|label| record.header.labels.get(label)))
            && (self.fields.is_empty() || self.fields.selects(|field| record.header.fields.get(field)))
    }
}

/// Which state a list or watch wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// No resourceVersion: the newest acknowledged state.
    Newest,
    /// `0`: whatever is at hand.
    Any,
    NotOlderThan(Revision),
    Exact(Revision),
}

/// The query of a list or watch.
#[derive(Clone, Debug)]
pub struct ListOptions {
    pub selectors: Selectors,
    pub version: Version,
    pub limit: usize,
    pub token: Option<Token>,
    pub bookmarks: bool,
    /// `Some` when the client said so: the initial events of a WatchList, or none.
    pub initial_events: Option<bool>,
    pub timeout_seconds: Option<u64>,
}

impl ListOptions {
    pub fn parse(call: &Call, watch: bool) -> Result<Self> {
        let query = &call.query;
        let limit = query.number::<i64>("limit")?.unwrap_or(0);
        let limit = usize::try_from(limit).map_err(|_| Failure::bad_request("limit must not be negative"))?;
        let token = match query.get("continue") {
            "" => None,
            text => Some(Token::decode(text)?),
        };
        let initial_events = query.has("sendInitialEvents").then(|| query.flag("sendInitialEvents"));
        let errors = conflicts(query, watch, initial_events);
        if !errors.is_empty() {
            return Err(Failure::invalid_options("ListOptions", &errors));
        }
        if token.is_some() && !matches!(query.get("resourceVersion"), "" | "0") {
            return Err(Failure::bad_request("specifying resource version is not allowed when using continue"));
        }
        Ok(Self {
            selectors: Selectors::parse(call)?,
            version: version(query, limit > 0 && !watch)?,
            limit,
            token,
            bookmarks: query.flag("allowWatchBookmarks"),
            initial_events,
            timeout_seconds: query.number("timeoutSeconds")?,
        })
    }
}

/// Parameters that may not stand together.
fn conflicts(query: &Query, watch: bool, initial_events: Option<bool>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut forbid = |field: &str, why: &str| errors.push(FieldError::new(field, Reason::Forbidden, why));
    let rule = query.get("resourceVersionMatch");
    let revision = query.get("resourceVersion");
    if watch && initial_events.is_some() {
        if rule != "NotOlderThan" {
            forbid("resourceVersionMatch", "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
        }
        return errors;
    }
    if initial_events.is_some() {
        forbid("sendInitialEvents", "sendInitialEvents is forbidden for list");
    }
    if rule.is_empty() {
        return errors;
    }
    if watch {
        forbid(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        );
    } else if !query.get("continue").is_empty() {
        forbid("resourceVersionMatch", "resourceVersionMatch is forbidden when continue is provided");
    } else if revision.is_empty() {
        forbid("resourceVersionMatch", "resourceVersionMatch is forbidden unless resourceVersion is provided");
    } else if rule == "Exact" && revision == "0" {
        forbid("resourceVersionMatch", "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
    } else if rule != "Exact" && rule != "NotOlderThan" {
        let message = "supported values: \"Exact\", \"NotOlderThan\", \"\"";
        errors
            .push(FieldError::new("resourceVersionMatch", Reason::NotSupported, message).with_value(Value::from(rule)));
    }
    errors
}

fn version(query: &Query, paged: bool) -> Result<Version> {
    let revision = match query.get("resourceVersion") {
        "" => return Ok(Version::Newest),
        "0" => return Ok(Version::Any),
        text => parse_revision(text)?,
    };
    Ok(match query.get("resourceVersionMatch") {
        "Exact" => Version::Exact(revision),
        "" if paged => Version::Exact(revision),
        _ => Version::NotOlderThan(revision),
    })
}

pub fn parse_revision(text: &str) -> Result<Revision> {
    text.parse().map_err(|_| Failure::bad_request(format!("invalid resource version: {text:?}")))
}

/// Where a list goes on: the revision of its first page (0: any newer one) and the last key served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub revision: Revision,
    pub namespace: String,
    pub name: String,
}

impl Token {
    pub fn encode(&self) -> String {
        let json = serde_json::json!({"v": 1, "rv": self.revision, "ns": self.namespace, "name": self.name});
        base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, json.to_string())
    }

    fn decode(text: &str) -> Result<Self> {
        let bad = || Failure::bad_request("continue key is not valid: it is no token of this server");
        let bytes =
            base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, text).map_err(|_| bad())?;
        let value: Value = serde_json::from_slice(&bytes).map_err(|_| bad())?;
        if value["v"] != 1 {
            return Err(bad());
        }
        let text = |key: &str| value[key].as_str().map(str::to_owned).ok_or_else(bad);
        Ok(Self { revision: value["rv"].as_u64().ok_or_else(bad)?, namespace: text("ns")?, name: text("name")? })
    }
}

/// How a write treats unknown and duplicate fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// The query of a write.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    pub dry_run: bool,
    pub field_validation: FieldValidation,
    /// Who owns what is written.
    pub manager: String,
    /// An apply takes what others own.
    pub force: bool,
}

/// How the object comes that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    Create,
    Update,
    Patch,
    Apply,
}

impl Sent {
    /// What messages call the query.
    fn options(self) -> &'static str {
        match self {
            Sent::Create => "CreateOptions",
            Sent::Update => "UpdateOptions",
            Sent::Patch | Sent::Apply => "PatchOptions",
        }
    }
}

impl WriteOptions {
    pub fn parse(query: &Query, headers: &HeaderMap, sent: Sent) -> Result<Self> {
        let manager = query.get("fieldManager");
        if manager.len() > FIELD_MANAGER_MAX || manager.chars().any(char::is_control) {
            let message = format!("must be printable and no more than {FIELD_MANAGER_MAX} bytes");
            let error = FieldError::new("fieldManager", Reason::Invalid, message).with_value(manager.into());
            return Err(Failure::invalid_options(sent.options(), &[error]));
        }
        if sent == Sent::Apply && manager.is_empty() {
            let error = FieldError::new("fieldManager", Reason::Required, "is required for apply patch");
            return Err(Failure::invalid_options(sent.options(), &[error]));
        }
        let force = query.flag("force");
        // Other writes know no such option, and pass it over.
        if sent == Sent::Patch && query.has("force") {
            let error = FieldError::new("force", Reason::Forbidden, "may not be specified for non-apply patch");
            return Err(Failure::invalid_options(sent.options(), &[error]));
        }
        let field_validation = match query.get("fieldValidation") {
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            other => {
                let message = "supported values: \"Ignore\", \"Strict\", \"Warn\"";
                let error = FieldError::new("fieldValidation", Reason::NotSupported, message).with_value(other.into());
                return Err(Failure::invalid_options(sent.options(), &[error]));
            }
        };
        let manager = if manager.is_empty() { user_agent(headers) } else { manager.to_owned() };
        Ok(Self { dry_run: dry_run(query.all("dryRun"))?, field_validation, manager, force })
    }
}

/// A client that names no manager is known by its program: `kubectl` of `kubectl/v1.33.0 (linux/amd64)`.
fn user_agent(headers: &HeaderMap) -> String {
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let program = agent.split('/').next().unwrap_or_default();
    program.chars().take(FIELD_MANAGER_MAX).collect()
}

/// `All` is the only value there is.
pub fn dry_run<'a>(values: impl Iterator<Item = &'a str>) -> Result<bool> {
    let mut dry = false;
    for value in values.filter(|value| !value.is_empty()) {
        if value != "All" {
            return Err(Failure::bad_request(format!("invalid dryRun value {value:?}: supported values: \"All\"")));
        }
        dry = true;
    }
    Ok(dry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip_and_foreign_ones_are_refused() {
        let token = Token { revision: 7, namespace: "a".into(), name: "b".into() };
        assert_eq!(Token::decode(&token.encode()).ok(), Some(token));
        for text in ["x", "e30", "%%%"] {
            assert_eq!(Token::decode(text).map_err(|e| e.code), Err(400), "{text}");
        }
    }

    #[test]
    fn which_state_a_list_wants() {
        for (query, paged, want) in [
            ("", true, Version::Newest),
            ("resourceVersion=0", true, Version::Any),
            ("resourceVersion=5", false, Version::NotOlderThan(5)),
            ("resourceVersion=5", true, Version::Exact(5)),
            ("resourceVersion=5&resourceVersionMatch=Exact", false, Version::Exact(5)),
            ("resourceVersion=5&resourceVersionMatch=NotOlderThan", true, Version::NotOlderThan(5)),
        ] {
            let uri: Uri = format!("/x?{query}").parse().unwrap_or_default();
            let got = Query::parse(&uri).and_then(|query| version(&query, paged)).ok();
            assert_eq!(got, Some(want), "{query}");
        }
        for (query, watch, refused) in [
            ("resourceVersionMatch=Exact", false, true),
            ("resourceVersion=0&resourceVersionMatch=Exact", false, true),
            ("resourceVersion=1&resourceVersionMatch=Sometimes", false, true),
            ("sendInitialEvents=true", false, true),
            ("sendInitialEvents=true", true, true),
            ("sendInitialEvents=true&resourceVersionMatch=NotOlderThan", true, false),
            ("resourceVersion=1&resourceVersionMatch=NotOlderThan", true, true),
        ] {
            let uri: Uri = format!("/x?{query}").parse().unwrap_or_default();
            let query_parsed = Query::parse(&uri).unwrap_or_default();
            let initial = query_parsed.has("sendInitialEvents").then_some(true);
            assert_eq!(!conflicts(&query_parsed, watch, initial).is_empty(), refused, "{query}");
        }
    }
}

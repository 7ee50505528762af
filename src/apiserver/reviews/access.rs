//! Who may do what: the same decision that a request meets, for a request that somebody describes.

use control::authz::{Attributes, User};
use control::rbac::{Decision, Rule};
use objects::selector::{FieldSelector, FieldTerm};
use objects::{FieldError, Reason, meta};
use serde_json::{Value, json};

use super::Question;
use crate::status::{Failure, Result};

/// The status of a review of one request: of the asker's own, or of somebody else's.
pub fn decided(question: &Question<'_>) -> Result<Value> {
    let Question { server, review, object, user, namespace } = question;
    let spec = object.get("spec").cloned().unwrap_or_default();
    let own = review.kind == "SelfSubjectAccessReview";
    let mut errors = errors(&spec);
    if !own && meta::text(&spec, &["user"]).is_empty() && meta::list(&spec, &["groups"]).is_empty() {
        errors.push(invalid("spec.user", "", "at least one of user or group must be specified"));
    }
    if review.namespaced {
        if meta::at(&spec, &["nonResourceAttributes"]).is_some() {
            let why = "disallowed on this kind of request";
            errors.push(invalid("spec.nonResourceAttributes", "", why));
        }
        let within = meta::text(&spec, &["resourceAttributes", "namespace"]);
        let own = meta::namespace(object);
        if !own.is_empty() && own != *namespace {
            return Err(Failure::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        if within != *namespace {
            let why = "must match metadata.namespace";
            errors.push(invalid("spec.resourceAttributes.namespace", within, why));
        }
    }
    if !errors.is_empty() {
        return Err(Failure::invalid_review(review, "", &errors));
    }
    let (attributes, misread) = attributes(&spec);
    let somebody = if own { (*user).clone() } else { described(&spec) };
    let Decision { allowed, reason } = server.authorizer.decide(&somebody, &attributes, &server.config.replica.root());
    let mut status = json!({"allowed": allowed});
    for (field, text) in [("reason", reason), ("evaluationError", misread)] {
        if !text.is_empty() {
            status[field] = text.into();
        }
    }
    Ok(status)
}

fn invalid(field: &str, value: &str, why: &str) -> FieldError {
    FieldError::new(field, Reason::Invalid, why).with_value(value.into())
}

/// A review is of exactly one request: for a resource or for a path.
fn errors(spec: &Value) -> Vec<FieldError> {
    let there = |field: &str| meta::at(spec, &[field]).is_some();
    match (there("resourceAttributes"), there("nonResourceAttributes")) {
        (true, true) => {
            let why = "cannot be specified in combination with resourceAttributes";
            vec![invalid("spec.nonResourceAttributes", "", why)]
        }
        (false, false) => {
            let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            vec![invalid("spec.resourceAttributes", "", why)]
        }
        _ => Vec::new(),
    }
}

/// The user that a review describes. Nothing is added: who asks says which groups there are.
fn described(spec: &Value) -> User {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    let extra = meta::at(spec, &["extra"]).and_then(Value::as_object).into_iter().flatten();
    User {
        name: meta::text(spec, &["user"]).to_owned(),
        uid: meta::text(spec, &["uid"]).to_owned(),
        groups: meta::at(spec, &["groups"]).map(texts).unwrap_or_default(),
        extra: extra.map(|(key, values)| (key.to_lowercase(), texts(values))).collect(),
    }
}

/// The request that a review describes, and what of its field selector could not be read.
fn attributes(spec: &Value) -> (Attributes, String) {
    let path = |name: &str| meta::text(spec, &["nonResourceAttributes", name]).to_owned();
    let of = |name: &str| meta::text(spec, &["resourceAttributes", name]).to_owned();
    if meta::at(spec, &["nonResourceAttributes"]).is_some() {
        return (Attributes { verb: path("verb"), path: path("path"), ..Attributes::default() }, String::new());
    }
    let (fields, misread) = match meta::at(spec, &["resourceAttributes", "fieldSelector"]) {
        Some(selector) => selected(selector),
        None => (FieldSelector::default(), String::new()),
    };
    let attributes = Attributes {
        verb: of("verb"),
        group: of("group"),
        resource: of("resource"),
        subresource: of("subresource"),
        namespace: of("namespace"),
        name: of("name"),
        path: String::new(),
        fields,
    };
    (attributes, misread)
}

/// A selector as text, or as requirements; those that no selector in a query can say are left out, which allows less.
fn selected(selector: &Value) -> (FieldSelector, String) {
    let raw = meta::text(selector, &["rawSelector"]);
    if !raw.is_empty() {
        return match FieldSelector::parse(raw) {
            Ok(fields) => (fields, String::new()),
            Err(error) => (
                FieldSelector::default(),
                format!("spec.resourceAttributes.fieldSelector ignored due to parse error: {error}"),
            ),
        };
    }
    let term = |requirement: &Value| {
        let equal = match meta::text(requirement, &["operator"]) {
            "In" => true,
            "NotIn" => false,
            _ => return None,
        };
        let [value] = meta::list(requirement, &["values"]) else { return None };
        let field = meta::text(requirement, &["key"]).to_owned();
        Some(FieldTerm { field, equal, value: value.as_str()?.to_owned() })
    };
    let terms = meta::list(selector, &["requirements"]).iter().filter_map(term).collect();
    (FieldSelector { terms }, String::new())
}

/// The status of a review of all that the asker may do in a namespace.
pub fn rules(question: &Question<'_>) -> Result<Value> {
    let Question { server, object, user, .. } = question;
    let namespace = meta::text(object, &["spec", "namespace"]);
    if namespace.is_empty() {
        return Err(Failure::bad_request("no namespace on request"));
    }
    let rules = server.authorizer.rules_for(user, namespace, &server.config.replica.root());
    let list = |rules: &[Rule]| -> Value { rules.iter().map(|rule| json!(rule)).collect() };
    let mut status = json!({
        "resourceRules": list(&rules.resources),
        "nonResourceRules": list(&rules.paths),
        "incomplete": rules.incomplete,
    });
    if !rules.error.is_empty() {
        status["evaluationError"] = rules.error.into();
    }
    Ok(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_that_is_described() {
        let selector = |selector: Value| json!({"resourceAttributes": {"verb": "list", "resource": "pods", "fieldSelector": selector}});
        let requirement =
            |operator: &str, values: &[&str]| json!({"key": "spec.nodeName", "operator": operator, "values": values});
        for (spec, fields, misread) in [
            (selector(json!({"rawSelector": "spec.nodeName=n1"})), "spec.nodeName=n1", false),
            (selector(json!({"rawSelector": "spec.nodeName"})), "", true),
            (selector(json!({"requirements": [requirement("In", &["n1"])]})), "spec.nodeName=n1", false),
            (selector(json!({"requirements": [requirement("NotIn", &["n1"])]})), "spec.nodeName!=n1", false),
            (selector(json!({"requirements": [requirement("In", &["n1", "n2"])]})), "", false),
            (selector(json!({"requirements": [requirement("Exists", &[])]})), "", false),
        ] {
            let (attributes, why) = attributes(&spec);
            assert_eq!((attributes.verb.as_str(), attributes.resource.as_str()), ("list", "pods"));
            assert_eq!((attributes.fields.to_string().as_str(), !why.is_empty()), (fields, misread), "{spec}");
        }
        let (attributes, _) = attributes(&json!({"nonResourceAttributes": {"verb": "get", "path": "/metrics"}}));
        assert_eq!((attributes.verb.as_str(), attributes.path.as_str()), ("get", "/metrics"));
    }
}

//! One rule of a role: which verbs on which resources, or on which paths that are no resource.

use serde::{Deserialize, Serialize};

use crate::authz::Attributes;

/// What everything is called in each of a rule's lists.
pub(super) const ALL: &str = "*";

/// A `PolicyRule`. Its lists are alternatives; a request must fit one entry of each that applies to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Rule {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty")]
    pub non_resource_urls: Vec<String>,
    /// Empty: all names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    pub verbs: Vec<String>,
}

impl Rule {
    pub fn allows(&self, asked: &Attributes) -> bool {
        let listed = |list: &[String], value: &str| list.iter().any(|entry| entry == ALL || entry == value);
        if !listed(&self.verbs, &asked.verb) {
            return false;
        }
        if asked.resource.is_empty() {
            return self.non_resource_urls.iter().any(|url| url_covers(url, &asked.path));
        }
        listed(&self.api_groups, &asked.group)
            && self.resources.iter().any(|resource| is_resource(resource, &asked.resource, &asked.subresource))
            && (self.resource_names.is_empty() || self.resource_names.iter().any(|name| name == asked_name(asked)))
    }
}

/// Whether an entry of `resources` means this one: `*`, `pods`, `pods/log` or `*/scale`. `pods/*` means nothing.
fn is_resource(entry: &str, resource: &str, subresource: &str) -> bool {
    if subresource.is_empty() {
        return entry == ALL || entry == resource;
    }
    let of_this = entry.strip_prefix(resource).and_then(|rest| rest.strip_prefix('/'));
    entry == ALL || of_this == Some(subresource) || entry.strip_prefix("*/") == Some(subresource)
}

/// Whether a path, with `*` at its end for whatever follows, means all that the other one does.
pub(super) fn url_covers(url: &str, path: &str) -> bool {
    url == path || (url.ends_with(ALL) && path.starts_with(url.trim_end_matches(ALL)))
}

/// The one name a request is for. A list or watch restricted to a name is for that one; `deletecollection` is for all,
/// whatever it selects, and `create` has no name yet.
fn asked_name(asked: &Attributes) -> &str {
    match asked.verb.as_str() {
        "list" | "watch" if asked.name.is_empty() => asked.fields.exact("metadata.name").unwrap_or(""),
        _ => &asked.name,
    }
}

impl std::fmt::Display for Rule {
    /// `{APIGroups:["apps"], Resources:["deployments"], Verbs:["get" "list"]}`, as Kubernetes' messages have it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lists = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ];
        f.write_str("{")?;
        for (i, (name, list)) in lists.iter().filter(|(_, list)| !list.is_empty()).enumerate() {
            write!(f, "{}{name}:{}", if i > 0 { ", " } else { "" }, quoted(list))?;
        }
        f.write_str("}")
    }
}

/// `["a" "b"]`.
pub(super) fn quoted(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(|entry| format!("{entry:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::rbac::testing::asked;

    #[test]
    fn what_a_rule_allows() {
        let pods = json!({"apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["get", "list"]});
        let scale = json!({"apiGroups": ["*"], "resources": ["*/scale"], "verbs": ["*"]});
        let below = json!({"apiGroups": [""], "resources": ["pods/*"], "verbs": ["*"]});
        let everything = json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]});
        let named =
            json!({"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["a", "b"], "verbs": ["*"]});
        let health = json!({"nonResourceURLs": ["/healthz", "/healthz/*"], "verbs": ["get", "post"]});
        let paths = json!({"nonResourceURLs": ["*"], "verbs": ["*"]});
        for (rule, verb, what, expected) in [
            (&pods, "get", "|pods||ns|x", true),
            (&pods, "list", "|pods|||", true),
            (&pods, "get", "|pods|log|ns|x", true),
            (&pods, "get", "|pods|exec|ns|x", false),
            (&pods, "watch", "|pods||ns|", false),
            (&pods, "get", "apps|pods||ns|x", false),
            (&pods, "get", "|podsx||ns|x", false),
            (&pods, "get", ":/api", false),
            (&scale, "update", "apps|deployments|scale|ns|x", true),
            (&scale, "update", "apps|deployments||ns|x", false),
            (&scale, "update", "apps|deployments|scales|ns|x", false),
            (&below, "get", "|pods|log|ns|x", false),
            (&below, "get", "|pods|*|ns|x", true),
            (&everything, "escalate", "x.io|things|sub|ns|x", true),
            (&everything, "get", ":/metrics", false),
            (&named, "get", "|configmaps||ns|a", true),
            (&named, "get", "|configmaps||ns|c", false),
            (&named, "create", "|configmaps||ns|", false),
            (&named, "list", "|configmaps||ns|", false),
            (&named, "list", "|configmaps||ns||metadata.name=a", true),
            (&named, "watch", "|configmaps||ns||metadata.name=b,metadata.namespace=ns", true),
            (&named, "watch", "|configmaps||ns||metadata.name!=a", false),
            (&named, "watch", "|configmaps||ns||metadata.name=c", false),
            (&named, "deletecollection", "|configmaps||ns||metadata.name=a", false),
            (&health, "get", ":/healthz", true),
            (&health, "post", ":/healthz/etcd", true),
            (&health, "get", ":/healthzz", false),
            (&health, "put", ":/healthz", false),
            (&health, "get", "|pods|||", false),
            (&paths, "delete", ":/anything", true),
        ] {
            let parsed: Rule = serde_json::from_value(rule.clone()).expect("a rule");
            assert_eq!(parsed.allows(&asked(verb, what)), expected, "{rule} {verb} {what}");
            assert_eq!(serde_json::to_value(&parsed).expect("JSON"), *rule);
        }
    }

    #[test]
    fn as_messages_have_it() {
        let rule =
            json!({"apiGroups": ["", "apps"], "resources": ["pods"], "resourceNames": ["a"], "verbs": ["get", "*"]});
        let rule: Rule = serde_json::from_value(rule).expect("a rule");
        let text = r#"{APIGroups:["" "apps"], Resources:["pods"], ResourceNames:["a"], Verbs:["get" "*"]}"#;
        assert_eq!(rule.to_string(), text);
    }
}

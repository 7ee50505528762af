//! Who may decide on a CertificateSigningRequest, and who may answer it: beside the request itself, its signer must be
//! allowed, by name or by its domain.

use objects::{Kind, meta};
use serde_json::Value;

use crate::authz::Attributes;

const GROUP: &str = "certificates.k8s.io";

/// What a write to a subresource does with the signer's word: `approve`, `sign`; None for what is not about it.
pub fn verb(kind: &Kind, subresource: &str, new: &Value, old: &Value) -> Option<&'static str> {
    if (kind.group, kind.plural) != (GROUP, "certificatesigningrequests") {
        return None;
    }
    match subresource {
        "approval" => Some("approve"),
        "status" => {
            let signed = |object: &Value| {
                let failed = meta::list(object, &["status", "conditions"])
                    .iter()
                    .any(|condition| meta::text(condition, &["type"]) == "Failed");
                (meta::text(object, &["status", "certificate"]).to_owned(), failed)
            };
            (signed(new) != signed(old)).then_some("sign")
        }
        _ => None,
    }
}

/// What must be allowed to do it; one of these is enough.
pub fn checks(verb: &str, signer: &str) -> Vec<Attributes> {
    let ask = |name: String| Attributes {
        verb: verb.to_owned(),
        group: GROUP.to_owned(),
        resource: "signers".to_owned(),
        name,
        ..Attributes::default()
    };
    let domain = signer.split_once('/').map(|(domain, _)| format!("{domain}/*"));
    std::iter::once(signer.to_owned()).chain(domain).map(ask).collect()
}

#[cfg(test)]
mod tests {
    use objects::Kinds;
    use serde_json::json;

    use super::*;

    #[test]
    fn which_writes_are_about_the_signer() {
        let kind = |group: &str, plural: &str| Kinds::builtin().by_resource(group, plural).expect("a kind");
        let csr = kind(GROUP, "certificatesigningrequests");
        let old = json!({"status": {"conditions": [{"type": "Approved"}]}});
        let signed = json!({"status": {"certificate": "eA==", "conditions": [{"type": "Approved"}]}});
        let failed = json!({"status": {"conditions": [{"type": "Approved"}, {"type": "Failed"}]}});
        for (kind, subresource, new, expected) in [
            (csr, "approval", &old, Some("approve")),
            (csr, "status", &old, None),
            (csr, "status", &signed, Some("sign")),
            (csr, "status", &failed, Some("sign")),
            (csr, "", &signed, None),
            (kind("", "pods"), "status", &signed, None),
        ] {
            assert_eq!(verb(kind, subresource, new, &old), expected, "{kind:?} {subresource} {new}");
        }
    }

    #[test]
    fn a_signer_is_allowed_by_name_or_by_domain() {
        for (signer, names) in [("example.com/web", &["example.com/web", "example.com/*"][..]), ("odd", &["odd"])] {
            let checks = checks("approve", signer);
            assert_eq!(checks.iter().map(|check| check.name.as_str()).collect::<Vec<_>>(), names);
            assert!(checks.iter().all(|c| c.group == GROUP && c.resource == "signers" && c.verb == "approve"));
        }
    }
}

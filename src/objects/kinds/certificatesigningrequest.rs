//! CertificateSigningRequest: someone asks a signer for a certificate; someone else approves or denies.
//!
//! Who asks is the caller's to write ([`Kind::prepare_create`] drops what the client says of it): `username`, `uid`,
//! `groups` and `extra` of the spec. Nothing of the spec changes after that.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use serde_json::{Value, json};

use super::{Column, Fields, Kind, Part, Rules, Subresource, Typed, printed};
use crate::{At, Errors, Reason, meta, names};

const EXPIRATION_SECONDS_MIN: i64 = 600;
const PEM_BEGIN: &str = "-----BEGIN CERTIFICATE REQUEST-----";
const PEM_END: &str = "-----END CERTIFICATE REQUEST-----";
/// What only `/approval` changes.
const DECISIONS: &[&str] = &["Approved", "Denied"];

const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

static COLUMNS: &[Column] = &[
    printed::NAME,
    printed::AGE,
    printed::column("SignerName", "string", 0, "signerName indicates the requested signer, and is a qualified name."),
    printed::column(
        "Requestor",
        "string",
        0,
        "username contains the name of the user that created the CertificateSigningRequest.",
    ),
    printed::column(
        "RequestedDuration",
        "string",
        0,
        "expirationSeconds is the requested duration of validity of the issued certificate.",
    ),
    printed::column("Condition", "string", 0, "conditions applied to the request."),
];

pub(super) const KIND: Kind = Kind {
    group: "certificates.k8s.io",
    kind: "CertificateSigningRequest",
    plural: "certificatesigningrequests",
    singular: "certificatesigningrequest",
    short_names: &["csr"],
    namespaced: false,
    status: true,
    subresources: &[Subresource {
        name: "approval",
        verbs: &["get", "patch", "update"],
        group: "certificates.k8s.io",
        version: "v1",
        kind: "CertificateSigningRequest",
    }],
    selectable: &["spec.signerName"],
    columns: COLUMNS,
    rules: Rules {
        typed: Typed::of::<CertificateSigningRequest>(),
        validate,
        create,
        names_requester: true,
        update,
        fields,
        row,
        ..Rules::NONE
    },
    ..Kind::BASE
};

fn create(object: &mut Value) {
    meta::set(object, &["status"], json!({}));
    for field in ["username", "uid", "groups", "extra"] {
        meta::remove(object, &["spec", field]);
    }
}

/// A signer writes certificates and failures, an approver decisions.
fn update(new: &mut Value, old: &Value, part: Part) {
    let decides = |condition: &Value| DECISIONS.contains(&meta::text(condition, &["type"]));
    match part {
        Part::Status => {
            let mut conditions: Vec<Value> =
                meta::list(old, &["status", "conditions"]).iter().filter(|one| decides(one)).cloned().collect();
            let given = meta::list(new, &["status", "conditions"]);
            conditions.extend(given.iter().filter(|one| !decides(one)).cloned());
            if !conditions.is_empty() {
                meta::set(new, &["status", "conditions"], conditions.into());
            }
        }
        _ => meta::copy(new, old, &["spec"]),
    }
}

fn validate(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    if old.is_none() {
        validate_spec(&new.field("spec"), errors);
    }
    let conditions = new.fields(&["status", "conditions"]);
    let mut seen: Vec<&str> = Vec::new();
    for condition in conditions.items() {
        let (kind, status) = (condition.field("type"), condition.field("status"));
        if kind.is_empty() {
            errors.push(kind.required(""));
        } else if seen.contains(&kind.text()) {
            errors.push(kind.duplicate(kind.text()));
        }
        match kind.text() {
            "Approved" | "Denied" | "Failed" => status.one_of(&["True"], true, errors),
            _ => status.one_of(&["False", "True", "Unknown"], true, errors),
        }
        seen.push(kind.text());
    }
    if DECISIONS.iter().all(|kind| seen.contains(kind)) {
        errors.push(conditions.invalid("Approved and Denied conditions are mutually exclusive"));
    }
    if let Some(old) = old {
        keep(new, old, errors);
    }
}

/// Decisions and certificates are not taken back.
fn keep(new: &At<'_>, old: &At<'_>, errors: &mut Errors) {
    let conditions = new.fields(&["status", "conditions"]);
    let has = |kind: &str| conditions.items().any(|one| one.field("type").text() == kind);
    for before in old.fields(&["status", "conditions"]).items() {
        let kind = before.field("type").text();
        if matches!(kind, "Approved" | "Denied" | "Failed") && !has(kind) {
            errors.push(conditions.forbidden(format!("updates may not remove a condition of type {kind:?}")));
        }
    }
    let certificate = new.fields(&["status", "certificate"]);
    let issued = old.fields(&["status", "certificate"]);
    if !issued.is_empty() && issued.value != certificate.value {
        errors.push(certificate.forbidden("updates may not change an issued certificate"));
    }
}

fn validate_spec(spec: &At<'_>, errors: &mut Errors) {
    let request = spec.field("request");
    if let Err(message) = check_request(request.text()) {
        errors.push(request.invalid(message));
    }
    let usages = spec.field("usages");
    if usages.is_empty() {
        errors.push(usages.required(""));
    }
    let mut seen: Vec<&str> = Vec::new();
    for usage in usages.items() {
        usage.one_of(USAGES, true, errors);
        if seen.contains(&usage.text()) {
            errors.push(usage.error(Reason::Duplicate, "").with_value(usage.text().into()));
        }
        seen.push(usage.text());
    }
    signer(&spec.field("signerName"), errors);
    let expiration = spec.field("expirationSeconds");
    if expiration.int().is_some_and(|n| n < EXPIRATION_SECONDS_MIN) {
        errors.push(expiration.invalid("may not specify a duration less than 600 seconds (10 minutes)"));
    }
}

/// PEM around DER. What the DER says is for the signer to judge.
fn check_request(request: &str) -> Result<(), &'static str> {
    let pem = STANDARD.decode(request).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let block =
        pem.as_deref().and_then(|text| text.split_once(PEM_BEGIN)).and_then(|(_, rest)| rest.split_once(PEM_END));
    let Some((body, _)) = block else { return Err("PEM block type must be CERTIFICATE REQUEST") };
    let der: String = body.split_whitespace().collect();
    match STANDARD.decode(der) {
        // A sequence of so many bytes.
        Ok(bytes) if bytes.first() == Some(&0x30) => Ok(()),
        _ => Err("the PEM block holds no certificate request"),
    }
}

/// `example.com/signer`.
fn signer(at: &At<'_>, errors: &mut Errors) {
    if at.is_empty() {
        errors.push(at.required(""));
        return;
    }
    if at.text() == "kubernetes.io/legacy-unknown" {
        errors.push(at.invalid("the legacy signerName is not allowed via this API version"));
    }
    let [domain, path] = at.text().split('/').collect::<Vec<_>>()[..] else {
        errors.push(at.invalid("must be a fully qualified domain and path of the form 'example.com/signer-name'"));
        return;
    };
    let messages = names::subdomain(domain).into_iter().chain(names::subdomain(path));
    errors.extend(messages.map(|message| at.invalid(message)));
    if !domain.contains('.') {
        errors.push(at.invalid("should be a domain with at least two segments separated by dots"));
    }
}

fn fields(object: &Value, fields: &mut Fields) {
    fields.insert("spec.signerName".into(), meta::text(object, &["spec", "signerName"]).into());
}

fn condition(object: &Value) -> String {
    let conditions = meta::list(object, &["status", "conditions"]);
    let has = |kind: &str| conditions.iter().any(|one| meta::text(one, &["type"]) == kind);
    let mut text = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    }
    .to_owned();
    if has("Failed") {
        text.push_str(",Failed");
    }
    if !meta::text(object, &["status", "certificate"]).is_empty() {
        text.push_str(",Issued");
    }
    text
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let duration = match meta::int(object, &["spec", "expirationSeconds"]) {
        Some(seconds) => printed::human_duration(seconds),
        None => "<none>".to_owned(),
    };
    vec![
        printed::name(object),
        printed::age(object, now),
        printed::text_or(object, &["spec", "signerName"], "<none>"),
        meta::text(object, &["spec", "username"]).into(),
        duration.into(),
        condition(object).into(),
    ]
}

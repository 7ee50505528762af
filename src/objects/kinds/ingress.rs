//! Ingress: which Service answers for which host and path. A controller of the user's choice serves it.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::Ingress;
use serde_json::{Value, json};

use super::{Column, Kind, Rules, Typed, printed, spec_changed};
use crate::{At, Errors, meta, names};

/// Names the class as long as there was no field for it.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const HOSTS_PRINTED_MAX: usize = 3;

static COLUMNS: &[Column] = &[
    printed::NAME,
    printed::column(
        "Class",
        "string",
        0,
        "The name of the IngressClass resource that should be used for additional configuration",
    ),
    printed::column("Hosts", "string", 0, "Hosts that incoming requests are matched against before the ingress rule"),
    printed::column("Address", "string", 0, "Address is a list containing ingress points for the load-balancer"),
    printed::column("Ports", "string", 0, "Ports of TLS configurations that open"),
    printed::AGE,
];

pub(super) const KIND: Kind = Kind {
    group: "networking.k8s.io",
    kind: "Ingress",
    plural: "ingresses",
    singular: "ingress",
    short_names: &["ing"],
    status: true,
    kept_only: true,
    columns: COLUMNS,
    rules: Rules {
        typed: Typed::of::<Ingress>(),
        validate,
        create: |object| meta::set(object, &["status"], json!({"loadBalancer": {}})),
        generation: Some(spec_changed),
        row,
        ..Rules::NONE
    },
    ..Kind::BASE
};

fn validate(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let spec = new.field("spec");
    let (rules, backend, class) = (spec.field("rules"), spec.field("defaultBackend"), spec.field("ingressClassName"));
    if rules.is_empty() && !backend.is_set() {
        errors.push(spec.invalid("either `defaultBackend` or `rules` must be specified"));
    }
    if backend.is_set() {
        validate_backend(&backend, errors);
    }
    for at in rules.items() {
        rule(&at, errors);
    }
    for tls in spec.field("tls").items() {
        for at in tls.field("hosts").items() {
            host(&at, errors);
        }
        let secret = tls.field("secretName");
        if !secret.is_empty() {
            errors.extend(names::subdomain(secret.text()).into_iter().map(|message| secret.invalid(message)));
        }
    }
    if class.is_set() {
        errors.extend(names::subdomain(class.text()).into_iter().map(|message| class.invalid(message)));
    }
    let annotation = new.fields(&["metadata", "annotations"]).field(CLASS_ANNOTATION);
    if old.is_none() && annotation.is_set() && class.is_set() {
        let at = new.fields(&["metadata", "annotations"]).key(CLASS_ANNOTATION);
        errors.push(at.invalid("can not be set when the class field is also set"));
    }
}

fn rule(rule: &At<'_>, errors: &mut Errors) {
    let name = rule.field("host");
    if !name.is_empty() {
        if name.text().parse::<IpAddr>().is_ok() {
            errors.push(name.invalid("must be a DNS name, not an IP address"));
        } else {
            host(&name, errors);
        }
    }
    let http = rule.field("http");
    if !http.is_set() {
        return;
    }
    let paths = http.field("paths");
    if paths.is_empty() {
        errors.push(paths.required(""));
    }
    for at in paths.items() {
        path(&at, errors);
        validate_backend(&at.field("backend"), errors);
    }
}

fn host(at: &At<'_>, errors: &mut Errors) {
    let check = if at.text().contains('*') { names::wildcard_subdomain } else { names::subdomain };
    errors.extend(check(at.text()).into_iter().map(|message| at.invalid(message)));
}

fn path(at: &At<'_>, errors: &mut Errors) {
    let (kind, path) = (at.field("pathType"), at.field("path"));
    let text = path.text();
    match kind.text() {
        "" => errors.push(kind.required("pathType must be specified")),
        "ImplementationSpecific" => {
            if !text.is_empty() && !text.starts_with('/') {
                errors.push(path.invalid("must be an absolute path"));
            }
        }
        "Exact" | "Prefix" => {
            if !text.starts_with('/') {
                errors.push(path.invalid("must be an absolute path"));
            }
            for sequence in ["//", "/./", "/../", "%2f", "%2F"].iter().filter(|sequence| text.contains(**sequence)) {
                errors.push(path.invalid(format!("must not contain '{sequence}'")));
            }
            for suffix in ["/..", "/."].iter().filter(|suffix| text.ends_with(**suffix)) {
                errors.push(path.invalid(format!("cannot end with '{suffix}'")));
            }
        }
        _ => errors.push(kind.unsupported(&["Exact", "ImplementationSpecific", "Prefix"])),
    }
}

/// A Service and one of its ports; or else another object that serves.
fn validate_backend(backend: &At<'_>, errors: &mut Errors) {
    let (service, resource) = (backend.field("service"), backend.field("resource"));
    match (service.is_set(), resource.is_set()) {
        (true, true) => errors.push(backend.invalid_value("", "cannot set both resource and service backends")),
        (false, false) => errors.push(backend.invalid_value("", "resource or service backend is required")),
        (false, true) => {
            for at in ["kind", "name"].map(|field| resource.field(field)) {
                if at.is_empty() {
                    errors.push(at.required(""));
                }
            }
        }
        (true, false) => {
            let name = service.field("name");
            if name.is_empty() {
                errors.push(name.required(""));
            } else {
                errors.extend(names::label_1035(name.text()).into_iter().map(|message| name.invalid(message)));
            }
            port(backend, &service.field("port"), errors);
        }
    }
}

fn port(backend: &At<'_>, port: &At<'_>, errors: &mut Errors) {
    let (name, number) = (port.field("name"), port.field("number"));
    match (name.is_empty(), number.is_empty()) {
        (false, false) => errors.push(backend.invalid_value("", "cannot set both port name & port number")),
        (true, true) => errors.push(backend.required("port name or number is required")),
        (false, true) => {
            errors.extend(names::port_name(name.text()).into_iter().map(|message| name.invalid(message)));
        }
        (true, false) => {
            let given = number.int().unwrap_or(0);
            errors.extend(names::port(given).into_iter().map(|message| number.invalid(message)));
        }
    }
}

fn hosts(object: &Value) -> String {
    let rules = meta::list(object, &["spec", "rules"]);
    let named = rules.iter().map(|rule| meta::text(rule, &["host"])).filter(|host| !host.is_empty());
    let shown: Vec<&str> = named.take(HOSTS_PRINTED_MAX).collect();
    match shown.join(",") {
        none if none.is_empty() => "*".to_owned(),
        some if rules.len() > HOSTS_PRINTED_MAX && shown.len() == HOSTS_PRINTED_MAX => {
            format!("{some} + {} more...", rules.len() - HOSTS_PRINTED_MAX)
        }
        some => some,
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let secured = !meta::list(object, &["spec", "tls"]).is_empty();
    vec![
        printed::name(object),
        printed::text_or(object, &["spec", "ingressClassName"], "<none>"),
        hosts(object).into(),
        printed::balancer(object).into(),
        if secured { "80, 443" } else { "80" }.into(),
        printed::age(object, now),
    ]
}

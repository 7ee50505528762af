//! Endpoints: all addresses behind a Service in one object, as it was before EndpointSlices.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Endpoints;
use serde_json::{Value, json};

use super::{Column, Kind, Rules, Typed, address, printed};
use crate::{At, Errors, meta, names};

static COLUMNS: &[Column] = &[
    printed::NAME,
    printed::column("Endpoints", "string", 0, "The set of all endpoints is the union of all subsets."),
    printed::AGE,
];

pub(super) const KIND: Kind = Kind {
    kind: "Endpoints",
    plural: "endpoints",
    singular: "endpoints",
    short_names: &["ep"],
    create_on_update: true,
    columns: COLUMNS,
    rules: Rules { typed: Typed::of::<Endpoints>(), default, validate, row, ..Rules::NONE },
    ..Kind::BASE
};

fn default(object: &mut Value) {
    for subset in meta::list_mut(object, &["subsets"]) {
        for port in meta::list_mut(subset, &["ports"]) {
            meta::set_empty(port, &["protocol"], json!("TCP"));
        }
    }
}

fn validate(new: &At<'_>, _old: Option<&At<'_>>, errors: &mut Errors) {
    for subset in new.field("subsets").items() {
        let lists = [subset.field("addresses"), subset.field("notReadyAddresses")];
        if lists.iter().all(At::is_empty) {
            errors.push(subset.required("must specify `addresses` or `notReadyAddresses`"));
        }
        for at in lists.iter().flat_map(At::items) {
            validate_address(&at, errors);
        }
        let ports = subset.field("ports");
        for port in ports.items() {
            validate_port(&port, ports.len() > 1, errors);
        }
    }
}

fn validate_address(at: &At<'_>, errors: &mut Errors) {
    address::endpoint(&at.field("ip"), errors);
    for (field, check) in [("hostname", names::label as fn(&str) -> Vec<String>), ("nodeName", names::subdomain)] {
        let at = at.field(field);
        if !at.is_empty() {
            errors.extend(check(at.text()).into_iter().map(|message| at.invalid(message)));
        }
    }
}

fn validate_port(port: &At<'_>, must_be_named: bool, errors: &mut Errors) {
    let (name, number) = (port.field("name"), port.field("port"));
    if name.is_empty() && must_be_named {
        errors.push(name.required(""));
    } else if !name.is_empty() {
        errors.extend(names::label(name.text()).into_iter().map(|message| name.invalid(message)));
    }
    let given = number.int().unwrap_or(0);
    errors.extend(names::port(given).into_iter().map(|message| number.invalid_value(given, message)));
    port.field("protocol").one_of(&["SCTP", "TCP", "UDP"], true, errors);
}

/// `ip:port` of every ready address, an IPv6 one in brackets.
fn points(object: &Value) -> Vec<String> {
    let mut points = Vec::new();
    for subset in meta::list(object, &["subsets"]) {
        let ips: Vec<&str> = meta::list(subset, &["addresses"]).iter().map(|one| meta::text(one, &["ip"])).collect();
        let ports = meta::list(subset, &["ports"]);
        if ports.is_empty() {
            points.extend(ips.iter().map(|ip| (*ip).to_owned()));
        }
        for port in ports {
            let port = meta::int(port, &["port"]).unwrap_or(0);
            points.extend(
                ips.iter().map(|ip| if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }),
            );
        }
    }
    points
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let points = match meta::list(object, &["subsets"]) {
        [] => "<none>".to_owned(),
        _ => printed::some(&points(object)),
    };
    vec![printed::name(object), points.into(), printed::age(object, now)]
}

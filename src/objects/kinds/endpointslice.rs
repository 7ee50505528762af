//! EndpointSlice: some of the addresses behind a Service.

use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::Value;

use super::{Column, Kind, Rules, Typed, printed};
use crate::{At, Errors, Reason, meta, names};

const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 100;

static COLUMNS: &[Column] = &[
    printed::NAME,
    printed::column(
        "AddressType",
        "string",
        0,
        "addressType specifies the type of address carried by this EndpointSlice.",
    ),
    printed::column(
        "Ports",
        "string",
        0,
        "ports specifies the list of network ports exposed by each endpoint in this slice.",
    ),
    printed::column("Endpoints", "string", 0, "endpoints is a list of unique endpoints in this slice."),
    printed::AGE,
];

pub(super) const KIND: Kind = Kind {
    group: "discovery.k8s.io",
    kind: "EndpointSlice",
    plural: "endpointslices",
    singular: "endpointslice",
    columns: COLUMNS,
    rules: Rules {
        typed: Typed::of::<EndpointSlice>(),
        default,
        validate,
        generation: Some(|new, old| {
            ["addressType", "endpoints", "ports"].iter().any(|field| new.get(*field) != old.get(*field))
                || meta::labels(new) != meta::labels(old)
        }),
        row,
        ..Rules::NONE
    },
    ..Kind::BASE
};

fn default(object: &mut Value) {
    let Some(Value::Array(ports)) = object.get_mut("ports") else { return };
    for port in ports {
        for (field, value) in [("name", ""), ("protocol", "TCP")] {
            if meta::at(port, &[field]).is_none() {
                meta::set(port, &[field], value.into());
            }
        }
    }
}

fn validate(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let kind = new.field("addressType");
    kind.one_of(&["FQDN", "IPv4", "IPv6"], true, errors);
    let endpoints = new.field("endpoints");
    too_many(&endpoints, ENDPOINTS_MAX, errors);
    for endpoint in endpoints.items() {
        let addresses = endpoint.field("addresses");
        if addresses.is_empty() {
            errors.push(addresses.required("must contain at least 1 address"));
        }
        too_many(&addresses, ADDRESSES_MAX, errors);
        for address in addresses.items() {
            check_address(kind.text(), &address, errors);
        }
        let hostname = endpoint.field("hostname");
        if !hostname.is_empty() {
            errors.extend(names::label(hostname.text()).into_iter().map(|message| hostname.invalid(message)));
        }
    }
    let ports = new.field("ports");
    too_many(&ports, PORTS_MAX, errors);
    let mut seen: Vec<&str> = Vec::new();
    for port in ports.items() {
        let name = port.field("name");
        if !name.is_empty() {
            errors.extend(names::label(name.text()).into_iter().map(|message| name.invalid(message)));
        }
        if seen.contains(&name.text()) {
            errors.push(name.duplicate(name.text()));
        }
        seen.push(name.text());
        port.field("protocol").one_of(&["SCTP", "TCP", "UDP"], true, errors);
        let number = port.field("port");
        if let Some(n) = number.int() {
            errors.extend(names::port(n).into_iter().map(|message| number.invalid(message)));
        }
    }
    if let Some(old) = old {
        kind.immutable(&old.field("addressType"), errors);
    }
}

fn too_many(at: &At<'_>, max: usize, errors: &mut Errors) {
    if at.len() > max {
        errors.push(at.error(Reason::TooMany, format!("must have at most {max} items")).with_value(at.len().into()));
    }
}

fn check_address(kind: &str, address: &At<'_>, errors: &mut Errors) {
    let text = address.text();
    let good = match kind {
        "IPv4" => text
            .parse::<std::net::Ipv4Addr>()
            .is_ok_and(|ip| !ip.is_unspecified() && !ip.is_loopback() && !ip.is_link_local() && !ip.is_multicast()),
        "IPv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        _ => names::subdomain(text).is_empty(),
    };
    if !good {
        errors.push(address.invalid(format!("must be a valid {kind} address")));
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let ports = meta::list(object, &["ports"]).iter().map(|port| match meta::int(port, &["port"]) {
        Some(number) => number.to_string(),
        None => "*".to_owned(),
    });
    let addresses = meta::list(object, &["endpoints"])
        .iter()
        .flat_map(|endpoint| meta::list(endpoint, &["addresses"]))
        .filter_map(|address| address.as_str().map(str::to_owned));
    vec![
        printed::name(object),
        meta::text(object, &["addressType"]).into(),
        some(ports.collect()).into(),
        some(addresses.collect()).into(),
        printed::age(object, now),
    ]
}

fn some(all: Vec<String>) -> String {
    if all.is_empty() { "<unset>".to_owned() } else { printed::some(&all) }
}

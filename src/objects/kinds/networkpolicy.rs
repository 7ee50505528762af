//! NetworkPolicy: which traffic the pods it selects take and send; unselected pods take and send all.

use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde_json::{Value, json};

use super::{Column, Kind, Rules, Typed, address, printed, spec_changed, template};
use crate::{At, Errors, meta, names, selector};

static COLUMNS: &[Column] = &[
    printed::NAME,
    printed::column(
        "Pod-Selector",
        "string",
        0,
        "podSelector selects the pods to which this NetworkPolicy object applies.",
    ),
    printed::AGE,
];

pub(super) const KIND: Kind = Kind {
    group: "networking.k8s.io",
    kind: "NetworkPolicy",
    plural: "networkpolicies",
    singular: "networkpolicy",
    short_names: &["netpol"],
    kept_only: true,
    columns: COLUMNS,
    rules: Rules {
        typed: Typed::of::<NetworkPolicy>(),
        default,
        validate,
        generation: Some(spec_changed),
        fields: |object, fields| template::demand(object, &["spec", "podSelector", "matchLabels"], fields),
        row: |object, now| {
            let pods = printed::selector(object, &["spec", "podSelector"]);
            vec![printed::name(object), pods, printed::age(object, now)]
        },
        ..Rules::NONE
    },
    ..Kind::BASE
};

fn default(object: &mut Value) {
    for direction in ["ingress", "egress"] {
        for rule in meta::list_mut(object, &["spec", direction]) {
            for port in meta::list_mut(rule, &["ports"]) {
                meta::set_empty(port, &["protocol"], json!("TCP"));
            }
        }
    }
    let sends = !meta::list(object, &["spec", "egress"]).is_empty();
    let types = if sends { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
    meta::set_empty(object, &["spec", "policyTypes"], types);
}

fn validate(new: &At<'_>, _old: Option<&At<'_>>, errors: &mut Errors) {
    let spec = new.field("spec");
    selector::validate(&spec.field("podSelector"), errors);
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec.field(direction).items() {
            for at in rule.field("ports").items() {
                port(&at, errors);
            }
            for at in rule.field(peers).items() {
                peer(&at, errors);
            }
        }
    }
    let types = spec.field("policyTypes");
    if types.len() > 2 {
        errors.push(types.invalid("may not specify more than two policyTypes"));
    }
    for kind in types.items() {
        kind.one_of(&["Egress", "Ingress"], true, errors);
    }
}

fn port(at: &At<'_>, errors: &mut Errors) {
    at.field("protocol").one_of(&["SCTP", "TCP", "UDP"], false, errors);
    let (port, end) = (at.field("port"), at.field("endPort"));
    let number = |at: &At<'_>| at.int().unwrap_or(0);
    match port.value {
        Value::Null if end.is_set() => errors.push(end.invalid("may not be specified when `port` is not specified")),
        Value::Null => {}
        Value::String(name) => {
            errors.extend(names::port_name(name).into_iter().map(|message| port.invalid(message)));
            if end.is_set() {
                errors.push(end.invalid("may not be specified when `port` is non-numeric"));
            }
        }
        _ => {
            errors.extend(names::port(number(&port)).into_iter().map(|message| port.invalid(message)));
            if end.is_set() {
                errors.extend(names::port(number(&end)).into_iter().map(|message| end.invalid(message)));
                if number(&end) < number(&port) {
                    errors.push(end.invalid("must be greater than or equal to `port`"));
                }
            }
        }
    }
}

/// Pods, namespaces or both; or else a network.
fn peer(at: &At<'_>, errors: &mut Errors) {
    let block = at.field("ipBlock");
    let selectors: Vec<At<'_>> =
        ["podSelector", "namespaceSelector"].iter().map(|field| at.field(field)).filter(At::is_set).collect();
    match (selectors.is_empty(), block.is_set()) {
        (true, false) => errors.push(at.required("must specify a peer")),
        (false, true) => errors.push(at.forbidden("may not specify both ipBlock and another peer")),
        _ => {}
    }
    for at in selectors {
        selector::validate(&at, errors);
    }
    if block.is_set() {
        ip_block(&block, errors);
    }
}

fn ip_block(block: &At<'_>, errors: &mut Errors) {
    let cidr = block.field("cidr");
    if cidr.is_empty() {
        errors.push(cidr.required(""));
        return;
    }
    let Some(whole) = address::network(&cidr, errors) else { return };
    for at in block.field("except").items() {
        let Some(part) = address::network(&at, errors) else { continue };
        if !whole.contains(&part) || part.prefix_len() <= whole.prefix_len() {
            errors.push(at.invalid("must be a strict subset of `cidr`"));
        }
    }
}

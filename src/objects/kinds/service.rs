//! Service: one address for the pods a selector picks. Addresses and node ports are chosen in admission.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use super::{Column, Fields, Kind, PROXY, Part, Rules, Subresource, Typed, printed, template};
use crate::quota::Uses;
use crate::{At, Errors, meta, names, patch};

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const CLIENT_IP_TIMEOUT_S: i64 = 10_800;
const CLIENT_IP_TIMEOUT_MAX_S: i64 = 86_400;

static COLUMNS: &[Column] = &[
    printed::NAME,
    printed::column("Type", "string", 0, "type determines how the Service is exposed."),
    printed::column("Cluster-IP", "string", 0, "clusterIP is the IP address of the service."),
    printed::column(
        "External-IP",
        "string",
        0,
        "externalIPs is a list of IP addresses for which nodes in the cluster will also accept traffic for this service.",
    ),
    printed::column("Port(s)", "string", 0, "The list of ports that are exposed by this service."),
    printed::AGE,
    printed::column(
        "Selector",
        "string",
        1,
        "Route service traffic to pods with label keys and values matching this selector.",
    ),
];

pub(super) const KIND: Kind = Kind {
    kind: "Service",
    plural: "services",
    singular: "service",
    short_names: &["svc"],
    categories: &["all"],
    status: true,
    subresources: &[Subresource { name: "proxy", verbs: PROXY, group: "", version: "v1", kind: "ServiceProxyOptions" }],
    create_on_update: true,
    selectable: &["spec.clusterIP", "spec.type"],
    columns: COLUMNS,
    rules: Rules {
        typed: Typed::of::<Service>(),
        name: names::label_1035,
        default,
        validate,
        create: |object| meta::set(object, &["status"], json!({"loadBalancer": {}})),
        update,
        fields,
        claims,
        uses,
        row,
        lists: &patch::SERVICE,
        ..Rules::NONE
    },
    ..Kind::BASE
};

fn kind_of(service: &Value) -> &str {
    meta::text(service, &["spec", "type"])
}

fn default(object: &mut Value) {
    let set_empty = |object: &mut Value, field: &str, value: Value| {
        if meta::at(object, &["spec", field]).is_none_or(meta::is_empty) {
            meta::set(object, &["spec", field], value);
        }
    };
    set_empty(object, "type", "ClusterIP".into());
    set_empty(object, "sessionAffinity", "None".into());
    if meta::text(object, &["spec", "sessionAffinity"]) == "ClientIP" {
        let path = ["spec", "sessionAffinityConfig", "clientIP", "timeoutSeconds"];
        if meta::at(object, &path).is_none() {
            meta::set(object, &path, CLIENT_IP_TIMEOUT_S.into());
        }
    }
    let kind = kind_of(object).to_owned();
    if kind != "ExternalName" {
        set_empty(object, "internalTrafficPolicy", "Cluster".into());
    }
    if kind == "NodePort" || kind == "LoadBalancer" {
        set_empty(object, "externalTrafficPolicy", "Cluster".into());
    }
    if kind == "LoadBalancer" && meta::at(object, &["spec", "allocateLoadBalancerNodePorts"]).is_none() {
        meta::set(object, &["spec", "allocateLoadBalancerNodePorts"], true.into());
    }
    let Some(Value::Array(ports)) = object.pointer_mut("/spec/ports") else { return };
    for port in ports {
        if meta::text(port, &["protocol"]).is_empty() {
            meta::set(port, &["protocol"], "TCP".into());
        }
        if meta::at(port, &["targetPort"]).is_none_or(meta::is_empty) {
            let number = meta::at(port, &["port"]).cloned().unwrap_or(json!(0));
            meta::set(port, &["targetPort"], number);
        }
    }
}

/// Node ports that are still to be allocated count too.
fn uses(service: &Value, uses: &mut Uses) {
    let ports = meta::list(service, &["spec", "ports"]);
    let allocates =
        meta::at(service, &["spec", "allocateLoadBalancerNodePorts"]).and_then(Value::as_bool).unwrap_or(true);
    let asked = |port: &&Value| meta::int(port, &["nodePort"]).is_some_and(|number| number != 0);
    let node_ports = match kind_of(service) {
        "NodePort" => ports.len(),
        "LoadBalancer" if allocates => ports.len(),
        "LoadBalancer" => ports.iter().filter(asked).count(),
        _ => 0,
    };
    uses.add("services.nodeports", node_ports as u64);
    uses.add("services.loadbalancers", u64::from(kind_of(service) == "LoadBalancer"));
}

/// A service that changes its type loses what only the old one had, unless the client says it anew.
fn update(new: &mut Value, old: &Value, part: Part) {
    if part != Part::Main {
        return;
    }
    let outside = |service: &Value| {
        matches!(kind_of(service), "NodePort" | "LoadBalancer")
            || !meta::list(service, &["spec", "externalIPs"]).is_empty()
    };
    let balanced = |service: &Value| kind_of(service) == "LoadBalancer";
    let checked =
        |service: &Value| balanced(service) && meta::text(service, &["spec", "externalTrafficPolicy"]) == "Local";
    let named = |service: &Value| kind_of(service) != "ExternalName";
    let mut lost: Vec<&str> = Vec::new();
    // Health checks first: they depend on the policy that may go with the type.
    for (has, fields) in [
        (&checked as &dyn Fn(&Value) -> bool, &["healthCheckNodePort"][..]),
        (&outside, &["externalTrafficPolicy"]),
        (&balanced, &["allocateLoadBalancerNodePorts", "loadBalancerClass"]),
        (&named, &["internalTrafficPolicy"]),
    ] {
        if has(old) && !has(new) {
            lost.extend(fields);
        }
    }
    for field in lost {
        if meta::at(new, &["spec", field]) == meta::at(old, &["spec", field]) {
            meta::remove(new, &["spec", field]);
        }
    }
    if balanced(old) && !balanced(new) {
        meta::set(new, &["status", "loadBalancer"], json!({}));
    }
}

fn validate(new: &At<'_>, old: Option<&At<'_>>, errors: &mut Errors) {
    let spec = new.field("spec");
    let kind = spec.field("type");
    kind.one_of(TYPES, true, errors);
    let cluster_ip = spec.field("clusterIP");
    let ports = spec.field("ports");
    let external = kind.text() == "ExternalName";
    if ports.is_empty() && !external && cluster_ip.text() != "None" {
        errors.push(ports.required(""));
    }
    if external {
        external_name(&spec, errors);
    } else if !cluster_ip.is_empty() && cluster_ip.text() != "None" {
        ipv4(&spec.fields(&["clusterIPs"]).items().next().unwrap_or(cluster_ip.clone()), errors);
    }
    if matches!(kind.text(), "NodePort" | "LoadBalancer") && cluster_ip.text() == "None" {
        errors.push(
            spec.field("clusterIPs")
                .items()
                .next()
                .unwrap_or(cluster_ip.clone())
                .invalid(format!("may not be set to 'None' for {} services", kind.text())),
        );
    }
    validate_ports(&ports, kind.text(), errors);
    names::check_labels(&spec.field("selector"), errors);
    policies(&spec, errors);
    if let Some(old) = old {
        let old = old.field("spec");
        let before = old.field("clusterIP");
        let keeps = old.field("type").text() != "ExternalName" && !external;
        if keeps && !before.is_empty() && before.value != cluster_ip.value {
            let at = spec.field("clusterIPs").items().next().unwrap_or(cluster_ip);
            errors.push(at.invalid("may not change once set"));
        }
    }
}

fn external_name(spec: &At<'_>, errors: &mut Errors) {
    let name = spec.field("externalName");
    if name.is_empty() {
        errors.push(name.required(""));
    } else {
        let text = name.text().trim_end_matches('.');
        errors.extend(names::subdomain(text).into_iter().map(|message| name.invalid(message)));
    }
    let ips = spec.field("clusterIP");
    if !ips.is_empty() {
        errors.push(ips.forbidden("may not be set for ExternalName services"));
    }
}

fn ipv4(at: &At<'_>, errors: &mut Errors) {
    if at.text().parse::<std::net::Ipv4Addr>().is_err() {
        errors.push(at.invalid("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"));
    }
}

fn validate_ports(ports: &At<'_>, kind: &str, errors: &mut Errors) {
    let mut seen_names: Vec<&str> = Vec::new();
    let mut seen: Vec<(i64, &str)> = Vec::new();
    let mut node_ports: Vec<(i64, &str)> = Vec::new();
    for port in ports.items() {
        let name = port.field("name");
        if name.is_empty() && ports.len() > 1 {
            errors.push(name.required(""));
        } else if !name.is_empty() {
            errors.extend(names::label(name.text()).into_iter().map(|message| name.invalid(message)));
            if seen_names.contains(&name.text()) {
                errors.push(name.duplicate(name.text()));
            }
            seen_names.push(name.text());
        }
        let number = port.field("port");
        errors.extend(
            names::port(number.int().unwrap_or(0))
                .into_iter()
                .map(|m| number.invalid_value(number.int().unwrap_or(0), m)),
        );
        let protocol = port.field("protocol");
        protocol.one_of(&["SCTP", "TCP", "UDP"], true, errors);
        target_port(&port.field("targetPort"), errors);
        let key = (number.int().unwrap_or(0), protocol.text());
        if seen.contains(&key) {
            errors.push(port.duplicate(json!({"port": key.0, "protocol": key.1})));
        }
        seen.push(key);
        let node_port = port.field("nodePort");
        match node_port.int() {
            None | Some(0) => {}
            Some(_) if !matches!(kind, "NodePort" | "LoadBalancer") => {
                errors.push(node_port.forbidden(format!("may not be used when `type` is '{kind}'")));
            }
            Some(number) => {
                if node_ports.contains(&(number, protocol.text())) {
                    errors.push(node_port.duplicate(number));
                }
                node_ports.push((number, protocol.text()));
            }
        }
    }
}

fn target_port(at: &At<'_>, errors: &mut Errors) {
    let messages = match at.value {
        Value::String(name) => names::port_name(name),
        value => names::port(value.as_i64().unwrap_or(0)),
    };
    errors.extend(messages.into_iter().map(|message| at.invalid(message)));
}

fn policies(spec: &At<'_>, errors: &mut Errors) {
    spec.field("sessionAffinity").one_of(&["ClientIP", "None"], true, errors);
    spec.field("internalTrafficPolicy").one_of(&["Cluster", "Local"], false, errors);
    let external = spec.field("externalTrafficPolicy");
    external.one_of(&["Cluster", "Local"], false, errors);
    let kind = spec.field("type").text();
    if !external.is_empty() && matches!(kind, "ClusterIP" | "ExternalName") && spec.field("externalIPs").is_empty() {
        errors.push(external.invalid("may only be set for externally-accessible services"));
    }
    let timeout = spec.fields(&["sessionAffinityConfig", "clientIP", "timeoutSeconds"]);
    if timeout.int().is_some_and(|n| !(1..=CLIENT_IP_TIMEOUT_MAX_S).contains(&n)) {
        errors.push(timeout.invalid(format!("must be greater than 0 and less than {CLIENT_IP_TIMEOUT_MAX_S}")));
    }
    for ip in spec.field("externalIPs").items() {
        ipv4(&ip, errors);
    }
    // One family only, until IPv6 comes.
    for family in spec.field("ipFamilies").items() {
        family.one_of(&["IPv4"], true, errors);
    }
    spec.field("ipFamilyPolicy").one_of(&["SingleStack", "PreferDualStack"], false, errors);
}

fn fields(object: &Value, fields: &mut Fields) {
    for field in ["clusterIP", "type"] {
        fields.insert(format!("spec.{field}"), meta::text(object, &["spec", field]).into());
    }
    if meta::at(object, &["spec", "selector"]).is_some_and(|selector| !meta::is_empty(selector)) {
        template::demand(object, &["spec", "selector"], fields);
    }
}

fn claims(object: &Value) -> Vec<String> {
    let mut claims = Vec::new();
    let ip = meta::text(object, &["spec", "clusterIP"]);
    if !ip.is_empty() && ip != "None" {
        claims.push(format!("clusterip/{ip}"));
    }
    for port in meta::list(object, &["spec", "ports"]) {
        if let Some(number) = meta::int(port, &["nodePort"]).filter(|n| *n != 0) {
            let protocol = match meta::text(port, &["protocol"]) {
                "" => "TCP",
                protocol => protocol,
            };
            claims.push(format!("nodeport/{protocol}/{number}"));
        }
    }
    if let Some(number) = meta::int(object, &["spec", "healthCheckNodePort"]).filter(|n| *n != 0) {
        claims.push(format!("nodeport/TCP/{number}"));
    }
    claims
}

fn external_ips(object: &Value) -> String {
    let strings = |path: &[&str]| -> Vec<String> {
        meta::list(object, path).iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()
    };
    let given = strings(&["spec", "externalIPs"]).join(",");
    match kind_of(object) {
        "ExternalName" => meta::text(object, &["spec", "externalName"]).to_owned(),
        "LoadBalancer" => {
            let all: Vec<String> =
                [printed::balancer(object), given].into_iter().filter(|text| !text.is_empty()).collect();
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        _ if given.is_empty() => "<none>".to_owned(),
        _ => given,
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let ports: Vec<String> = meta::list(object, &["spec", "ports"])
        .iter()
        .map(|port| {
            let number = meta::int(port, &["port"]).unwrap_or(0);
            let protocol = meta::text(port, &["protocol"]);
            match meta::int(port, &["nodePort"]).unwrap_or(0) {
                0 => format!("{number}/{protocol}"),
                node_port => format!("{number}:{node_port}/{protocol}"),
            }
        })
        .collect();
    vec![
        printed::name(object),
        kind_of(object).into(),
        printed::or_none(meta::text(object, &["spec", "clusterIP"]).to_owned()),
        external_ips(object).into(),
        printed::or_none(ports.join(",")),
        printed::age(object, now),
        printed::pairs(object, &["spec", "selector"]),
    ]
}

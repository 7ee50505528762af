//! NetworkPolicy, Ingress, IngressClass and Endpoints.

use serde_json::{Value, json};

use super::{check_changes, check_defaults, check_refused, check_rows};

fn path(path: Value) -> Value {
    let mut whole =
        json!({"pathType": "Prefix", "path": "/", "backend": {"service": {"name": "web", "port": {"number": 80}}}});
    super::merge(&mut whole, path);
    json!({"spec": {"rules": [{"host": "a.example", "http": {"paths": [whole]}}]}})
}

fn ingress_rule(ports: Value, from: Value) -> Value {
    json!({"spec": {"ingress": [{"ports": ports, "from": from}]}})
}

fn subset(subset: Value) -> Value {
    json!({"subsets": [subset]})
}

#[test]
fn defaults() {
    check_defaults(&[
        ("networkpolicies", json!({}), "/spec/policyTypes", json!(["Ingress"])),
        ("networkpolicies", json!({"spec": {"egress": [{}]}}), "/spec/policyTypes", json!(["Ingress", "Egress"])),
        ("networkpolicies", json!({"spec": {"policyTypes": ["Egress"]}}), "/spec/policyTypes", json!(["Egress"])),
        (
            "networkpolicies",
            ingress_rule(json!([{"port": 80}]), json!([])),
            "/spec/ingress/0/ports/0/protocol",
            json!("TCP"),
        ),
        ("ingresses", json!({}), "/status", json!({"loadBalancer": {}})),
        (
            "ingressclasses",
            json!({"spec": {"parameters": {"kind": "Config", "name": "c"}}}),
            "/spec/parameters/scope",
            json!("Cluster"),
        ),
        (
            "endpoints",
            subset(json!({"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]})),
            "/subsets/0/ports/0/protocol",
            json!("TCP"),
        ),
    ]);
}

#[test]
fn refused() {
    let block = |block: Value| ingress_rule(json!([]), json!([{"ipBlock": block}]));
    let backend = |backend: Value| json!({"spec": {"defaultBackend": {"service": backend}}});
    check_refused(&[
        (
            "networkpolicies",
            ingress_rule(json!([{"port": 80, "endPort": 79}]), json!([])),
            "spec.ingress[0].ports[0].endPort: Invalid value: 79: must be greater than or equal to `port`",
        ),
        (
            "networkpolicies",
            ingress_rule(json!([{"port": "http", "endPort": 79}]), json!([])),
            "spec.ingress[0].ports[0].endPort: Invalid value: 79: may not be specified when `port` is non-numeric",
        ),
        (
            "networkpolicies",
            ingress_rule(json!([{"protocol": "ICMP"}]), json!([])),
            "spec.ingress[0].ports[0].protocol: Unsupported value: \"ICMP\"",
        ),
        (
            "networkpolicies",
            ingress_rule(json!([]), json!([{}])),
            "spec.ingress[0].from[0]: Required value: must specify a peer",
        ),
        (
            "networkpolicies",
            ingress_rule(json!([]), json!([{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}])),
            "spec.ingress[0].from[0]: Forbidden: may not specify both ipBlock and another peer",
        ),
        (
            "networkpolicies",
            block(json!({"cidr": "10.0.0.0"})),
            "spec.ingress[0].from[0].ipBlock.cidr: Invalid value: \"10.0.0.0\": must be a valid CIDR value",
        ),
        (
            "networkpolicies",
            block(json!({"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]})),
            "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
        ),
        (
            "networkpolicies",
            block(json!({"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]})),
            "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"10.0.0.0/8\": must be a strict subset",
        ),
        (
            "networkpolicies",
            json!({"spec": {"policyTypes": ["Forward"]}}),
            "spec.policyTypes[0]: Unsupported value: \"Forward\"",
        ),
        (
            "ingresses",
            json!({"spec": {"defaultBackend": null}}),
            "spec: Invalid value: {}: either `defaultBackend` or `rules` must be specified",
        ),
        (
            "ingresses",
            path(json!({"pathType": null})),
            "spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified",
        ),
        (
            "ingresses",
            path(json!({"path": "a"})),
            "spec.rules[0].http.paths[0].path: Invalid value: \"a\": must be an absolute path",
        ),
        (
            "ingresses",
            path(json!({"path": "/a//b"})),
            "spec.rules[0].http.paths[0].path: Invalid value: \"/a//b\": must not contain '//'",
        ),
        (
            "ingresses",
            json!({"spec": {"rules": [{"host": "10.0.0.1"}]}}),
            "spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address",
        ),
        (
            "ingresses",
            json!({"spec": {"rules": [{"host": "a.*"}]}}),
            "spec.rules[0].host: Invalid value: \"a.*\": a wildcard DNS-1123",
        ),
        (
            "ingresses",
            backend(json!({"port": null})),
            "spec.defaultBackend: Required value: port name or number is required",
        ),
        (
            "ingresses",
            backend(json!({"port": {"name": "http"}})),
            "spec.defaultBackend: Invalid value: \"\": cannot set both port name & port number",
        ),
        (
            "ingresses",
            backend(json!({"name": "1"})),
            "spec.defaultBackend.service.name: Invalid value: \"1\": a DNS-1035 label",
        ),
        (
            "ingresses",
            json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": "a"}}, "spec": {"ingressClassName": "b"}}),
            "metadata.annotations[kubernetes.io/ingress.class]: Invalid value: \"a\": can not be set when the class field is also set",
        ),
        ("ingressclasses", json!({"spec": {"controller": null}}), "spec.controller: Required value"),
        (
            "ingressclasses",
            json!({"spec": {"controller": "nginx"}}),
            "spec.controller: Invalid value: \"nginx\": must be a domain-prefixed path (such as \"acme.io/foo\")",
        ),
        (
            "ingressclasses",
            json!({"spec": {"parameters": {"kind": "C", "name": "c", "scope": "Namespace"}}}),
            "spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'",
        ),
        (
            "endpoints",
            subset(json!({"ports": [{"port": 80}]})),
            "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`",
        ),
        (
            "endpoints",
            subset(json!({"addresses": [{"ip": "127.0.0.1"}]})),
            "subsets[0].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range",
        ),
        (
            "endpoints",
            subset(json!({"notReadyAddresses": [{"ip": "x"}]})),
            "subsets[0].notReadyAddresses[0].ip: Invalid value: \"x\": must be a valid IP address",
        ),
        (
            "endpoints",
            subset(json!({"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}, {"port": 81}]})),
            "subsets[0].ports[0].name: Required value",
        ),
    ]);
}

#[test]
fn changes() {
    check_changes(&[
        ("networkpolicies", json!({}), json!({"spec": {"podSelector": {"matchLabels": {"a": "b"}}}}), ""),
        ("ingresses", json!({}), json!({"spec": {"ingressClassName": "b"}}), ""),
        (
            "ingressclasses",
            json!({}),
            json!({"spec": {"controller": "example.com/other"}}),
            "spec.controller: Invalid value: \"example.com/other\": field is immutable",
        ),
        ("endpoints", json!({}), subset(json!({"addresses": [{"ip": "10.0.0.1"}]})), ""),
    ]);
}

#[test]
fn rows() {
    let hosts: Vec<Value> = ["a", "b", "c", "d"].iter().map(|host| json!({ "host": host })).collect();
    let addresses: Vec<Value> = (1..6).map(|i| json!({"ip": format!("10.0.0.{i}")})).collect();
    check_rows(&[
        ("networkpolicies", json!({}), json!(["x", "<none>", "60m"])),
        ("networkpolicies", json!({"spec": {"podSelector": {"matchLabels": {"a": "b"}}}}), json!(["x", "a=b", "60m"])),
        ("ingresses", json!({}), json!(["x", "<none>", "*", "", "80", "60m"])),
        (
            "ingresses",
            json!({"spec": {"ingressClassName": "nginx", "rules": hosts, "tls": [{}]},
                "status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.2"}, {"hostname": "lb.example"}, {"ip": "10.0.0.1"}]}}}),
            json!(["x", "nginx", "a,b,c + 1 more...", "10.0.0.1,10.0.0.2,lb.example", "80, 443", "60m"]),
        ),
        ("ingressclasses", json!({}), json!(["x", "example.com/controller", "<none>", "60m"])),
        (
            "ingressclasses",
            json!({"spec": {"parameters": {"apiGroup": "a.example", "kind": "Config", "name": "c"}}}),
            json!(["x", "example.com/controller", "Config.a.example/c", "60m"]),
        ),
        ("endpoints", json!({}), json!(["x", "<none>", "60m"])),
        ("endpoints", subset(json!({"addresses": [{"ip": "10.0.0.1"}]})), json!(["x", "10.0.0.1", "60m"])),
        (
            "endpoints",
            subset(json!({"addresses": addresses, "ports": [{"port": 80}]})),
            json!(["x", "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 2 more...", "60m"]),
        ),
        (
            "endpoints",
            subset(json!({"addresses": [{"ip": "fd00::1"}], "ports": [{"port": 80}]})),
            json!(["x", "[fd00::1]:80", "60m"]),
        ),
    ]);
}

//! Services: cluster addresses and node ports, chosen from what the claims index shows as free.
//!
//! The choice starts at a place the seed gives, so that two masters rarely choose the same; `apply` lets one of them win
//! and the other request is admitted again. The lowest part of each range is taken last, as it is where people choose.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use objects::{FieldError, Reason, meta};
use serde_json::{Value, json};
use state::State;

use super::{Denied, Request};
use crate::record;

const NODE_PORT_FIRST: u16 = 30_000;
const NODE_PORTS: u32 = 2768;

pub(super) fn allocate(request: &mut Request<'_>, root: &State) -> Result<(), Denied> {
    carry_over(request);
    let own = record::key(request.kind, meta::namespace(request.object), meta::name(request.object));
    let taken = |claim: &str| root.claimed(claim).is_some_and(|holder| *holder != own);
    cluster_ip(request, &taken)?;
    node_ports(request, &taken)
}

fn kind_of(service: &Value) -> &str {
    match meta::text(service, &["spec", "type"]) {
        "" => "ClusterIP",
        kind => kind,
    }
}

fn wants_node_ports(service: &Value) -> bool {
    match kind_of(service) {
        "NodePort" => true,
        "LoadBalancer" => {
            meta::at(service, &["spec", "allocateLoadBalancerNodePorts"]).and_then(Value::as_bool).unwrap_or(true)
        }
        _ => false,
    }
}

/// An update that leaves out what was allocated keeps it; one that changes the type gives up what the new type has not.
fn carry_over(request: &mut Request<'_>) {
    let Some(old) = request.old else { return };
    let service = &mut *request.object;
    let external = kind_of(service) == "ExternalName";
    let same_ip = meta::text(service, &["spec", "clusterIP"]) == meta::text(old, &["spec", "clusterIP"]);
    if external && same_ip && kind_of(old) != "ExternalName" {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            meta::remove(service, &["spec", field]);
        }
    } else if !external && meta::text(service, &["spec", "clusterIP"]).is_empty() && kind_of(old) != "ExternalName" {
        meta::copy(service, old, &["spec", "clusterIP"]);
        meta::copy(service, old, &["spec", "clusterIPs"]);
    }
    let old_ports = meta::list(old, &["spec", "ports"]).to_vec();
    let keep = wants_node_ports(service);
    for port in ports_mut(service) {
        let before = old_ports.iter().find(|before| same_port(before, port));
        let before = before.and_then(|before| meta::int(before, &["nodePort"])).unwrap_or(0);
        let now = meta::int(port, &["nodePort"]).unwrap_or(0);
        if keep && now == 0 && before != 0 {
            meta::set(port, &["nodePort"], before.into());
        } else if !keep && now == before {
            meta::remove(port, &["nodePort"]);
        }
    }
}

fn same_port(a: &Value, b: &Value) -> bool {
    let key = |port: &Value| (meta::int(port, &["port"]), protocol(port).to_owned());
    key(a) == key(b)
}

fn protocol(port: &Value) -> &str {
    match meta::text(port, &["protocol"]) {
        "" => "TCP",
        protocol => protocol,
    }
}

fn ports_mut(service: &mut Value) -> &mut [Value] {
    match service.pointer_mut("/spec/ports") {
        Some(Value::Array(ports)) => ports,
        _ => &mut [],
    }
}

fn invalid(field: &str, value: impl Into<Value>, message: impl Into<String>) -> Denied {
    Denied::Invalid(vec![FieldError::new(field, Reason::Invalid, message).with_value(value.into())])
}

fn cluster_ip(request: &mut Request<'_>, taken: &dyn Fn(&str) -> bool) -> Result<(), Denied> {
    let service = &mut *request.object;
    if kind_of(service) == "ExternalName" {
        return Ok(());
    }
    let cidr = request.settings.service_cidr;
    let mut ip = meta::text(service, &["spec", "clusterIP"]).to_owned();
    if ip.is_empty() {
        ip = meta::list(service, &["spec", "clusterIPs"]).first().and_then(Value::as_str).unwrap_or("").to_owned();
    }
    match ip.as_str() {
        "None" => {}
        "" => {
            ip = free_ip(cidr, request.seed, taken).ok_or_else(|| {
                invalid("spec.clusterIPs", json!([""]), "failed to allocate a service IP: range is full")
            })?;
        }
        asked => check_ip(asked, cidr, taken)?,
    }
    meta::set(service, &["spec", "clusterIP"], ip.as_str().into());
    meta::set(service, &["spec", "clusterIPs"], json!([ip]));
    for (field, value) in [("ipFamilies", json!(["IPv4"])), ("ipFamilyPolicy", json!("SingleStack"))] {
        if meta::at(service, &["spec", field]).is_none_or(meta::is_empty) {
            meta::set(service, &["spec", field], value);
        }
    }
    Ok(())
}

fn check_ip(asked: &str, cidr: Ipv4Net, taken: &dyn Fn(&str) -> bool) -> Result<(), Denied> {
    let refuse =
        |why: String| Err(invalid("spec.clusterIPs", json!([asked]), format!("failed to allocate IP {asked}: {why}")));
    match asked.parse::<Ipv4Addr>() {
        Ok(ip) if !cidr.contains(&ip) || ip == cidr.network() || ip == cidr.broadcast() => {
            refuse(format!("the provided network does not match the current range: {cidr}"))
        }
        Ok(ip) if taken(&format!("clusterip/{ip}")) => refuse("provided IP is already allocated".to_owned()),
        // What is no address at all is refused by validation.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// How much of a range of `size` dynamic allocation leaves to people as long as it can.
fn static_band(size: u32) -> u32 {
    (size / 16).clamp(16, 256).min(size / 2)
}

/// The places of a range of `size` in the order they are tried: behind the static band first, from where the seed says.
fn order(size: u32, seed: u64) -> impl Iterator<Item = u32> {
    let band = static_band(size);
    let (upper, start) = (size - band, draw(seed));
    let rotate =
        move |n: u32, base: u32| (0..n).map(move |i| base + ((start % u64::from(n.max(1))) as u32 + i) % n.max(1));
    rotate(upper, band).chain(rotate(band, 0))
}

/// Neighbouring seeds give unrelated numbers (the finisher of splitmix64).
fn draw(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn free_ip(cidr: Ipv4Net, seed: u64, taken: &dyn Fn(&str) -> bool) -> Option<String> {
    let first = u32::from(cidr.network()) + 1;
    let size = u32::from(cidr.broadcast()).checked_sub(first).filter(|size| *size > 0)?;
    order(size, seed)
        .map(|offset| Ipv4Addr::from(first + offset))
        // The first address is the API's own.
        .filter(|ip| u32::from(*ip) != first)
        .map(|ip| ip.to_string())
        .find(|ip| !taken(&format!("clusterip/{ip}")))
}

fn node_ports(request: &mut Request<'_>, taken: &dyn Fn(&str) -> bool) -> Result<(), Denied> {
    if !wants_node_ports(request.object) {
        return Ok(());
    }
    let service = &mut *request.object;
    let local =
        meta::text(service, &["spec", "externalTrafficPolicy"]) == "Local" && kind_of(service) == "LoadBalancer";
    let mut used: BTreeSet<String> = BTreeSet::new();
    for (i, port) in meta::list(service, &["spec", "ports"]).iter().enumerate() {
        let Some(number) = meta::int(port, &["nodePort"]).filter(|n| *n != 0) else { continue };
        let claim = format!("nodeport/{}/{number}", protocol(port));
        let field = format!("spec.ports[{i}].nodePort");
        if !(i64::from(NODE_PORT_FIRST)..i64::from(NODE_PORT_FIRST) + i64::from(NODE_PORTS)).contains(&number) {
            return Err(invalid(
                &field,
                number,
                "provided port is not in the valid range. The range of valid ports is 30000-32767",
            ));
        }
        if taken(&claim) {
            return Err(invalid(&field, number, "provided port is already allocated"));
        }
        used.insert(claim);
    }
    let chosen: Vec<Value> = meta::list(service, &["spec", "ports"]).to_vec();
    let mut seed = request.seed;
    let mut free = |protocol: &str, used: &BTreeSet<String>| {
        seed = draw(seed);
        order(NODE_PORTS, seed).map(|offset| NODE_PORT_FIRST + offset as u16).find(|port| {
            let claim = format!("nodeport/{protocol}/{port}");
            !used.contains(&claim) && !taken(&claim)
        })
    };
    let full = |field: &str| invalid(field, 0, "failed to allocate a nodePort: range is full");
    let mut given: Vec<(i64, u16)> = chosen
        .iter()
        .filter_map(|p| {
            Some((meta::int(p, &["port"])?, u16::try_from(meta::int(p, &["nodePort"])?).ok().filter(|n| *n > 0)?))
        })
        .collect();
    for (i, port) in ports_mut(service).iter_mut().enumerate() {
        if meta::int(port, &["nodePort"]).is_some_and(|n| n != 0) {
            continue;
        }
        let number = meta::int(port, &["port"]).unwrap_or(0);
        let protocol = protocol(port).to_owned();
        // TCP and UDP of one port get one node port where that is possible.
        let shared =
            given.iter().find(|(other, _)| *other == number).map(|(_, node_port)| *node_port).filter(|node_port| {
                let claim = format!("nodeport/{protocol}/{node_port}");
                !used.contains(&claim) && !taken(&claim)
            });
        let node_port =
            shared.or_else(|| free(&protocol, &used)).ok_or_else(|| full(&format!("spec.ports[{i}].nodePort")))?;
        used.insert(format!("nodeport/{protocol}/{node_port}"));
        given.push((number, node_port));
        meta::set(port, &["nodePort"], node_port.into());
    }
    if local && meta::int(service, &["spec", "healthCheckNodePort"]).unwrap_or(0) == 0 {
        let port = free("TCP", &used).ok_or_else(|| full("spec.healthCheckNodePort"))?;
        meta::set(service, &["spec", "healthCheckNodePort"], port.into());
    }
    Ok(())
}

//! A /24 of the cluster's pod addresses for each node, held as a claim so that no two nodes ever get the same.
//!
//! All nodes are one key: two nodes planned apart would ask for the same CIDR, and one be refused.

use ipnet::Ipv4Net;
use serde_json::json;
use state::{Event, Key, Record, State};

use crate::emit::{self, Notice};
use crate::{Context, Plan, Row, json, record};

const PREFIX: u8 = 24;

pub const ROW: Row = Row {
    name: "nodecidr",
    watches: &[("", "nodes")],
    keys: |root, event: &Event| {
        // A node that went may have left its CIDR to one that waits for it.
        let waits = |node: &Record| !has_cidr(node);
        let concerned = match &event.new {
            Some(node) => waits(node),
            None => root.list("", "nodes", None).any(|(_, node)| waits(node)),
        };
        if concerned { vec![all()] } else { Vec::new() }
    },
    plan,
    resync: |_| vec![all()],
};

fn all() -> Key {
    Key::node("")
}

fn plan(root: &State, _key: &Key, cx: &mut Context) -> Plan {
    let mut plan = Plan::default();
    let cluster = cx.settings.cluster_cidr;
    let subnets = cluster.subnets(PREFIX.max(cluster.prefix_len()));
    let mut free = subnets.into_iter().flatten().filter(|cidr| root.claimed(&claim(cidr)).is_none());
    for (key, present) in root.list("", "nodes", None).filter(|(_, node)| !has_cidr(node)) {
        let mut node = record::parse(present);
        let Some(cidr) = free.next() else {
            let message =
                format!("No free /{PREFIX} is left in the cluster's {cluster}: start with a wider --cluster-cidr");
            let notice =
                Notice { component: "node-controller", kind: "Warning", reason: "CIDRNotAvailable", message: &message };
            // Said once per node; the Event is its own memory.
            if root.list("", "events", Some("default")).all(|(_, event)| emit::field(event, "reason") != notice.reason)
            {
                plan.commands.extend(emit::notice(root, &node, &notice, cx));
            }
            break;
        };
        json::set(&mut node, "spec.podCIDR", cidr.to_string().into());
        json::set(&mut node, "spec.podCIDRs", json!([cidr.to_string()]));
        plan.commands.extend(emit::update_spec(key, present, &mut node));
    }
    plan
}

fn has_cidr(node: &Record) -> bool {
    !emit::field(node, "spec.podCIDR").is_empty()
}

fn claim(cidr: &Ipv4Net) -> String {
    format!("podcidr/{cidr}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::harness::{World, node};

    #[test]
    fn each_node_has_its_own_until_none_is_left() {
        let mut world = World::new();
        world.settings.cluster_cidr = "10.9.0.0/22".parse().expect("a CIDR");
        for i in 1..=5 {
            world.create("", "nodes", node(&format!("n{i}")));
        }
        world.settle();
        let cidr =
            |world: &World, i: u8| json::text(&world.object(&Key::node(format!("n{i}"))), "spec.podCIDR").to_owned();
        let all: BTreeSet<String> = (1..=4).map(|i| cidr(&world, i)).collect();
        assert_eq!(all.len(), 4, "{all:?}");
        assert_eq!(cidr(&world, 5), "");
        assert!(world.said("n5").iter().any(|(reason, _)| reason == "CIDRNotAvailable"));
        world.assert_nothing_to_plan();
        // What a deleted node held is free again.
        let held = cidr(&world, 2);
        world.remove(&Key::node("n2"));
        world.take_office();
        world.settle_quietly();
        assert_eq!(cidr(&world, 5), held);
    }
}

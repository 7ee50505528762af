//! What should happen next: controllers, scheduler, node life, admission and authorization rules, and the invariants
//! that judge them. Every decision is a plain function of a state and a [`Context`]; nothing here waits, reads a clock,
//! draws a random number or writes. The leader loop (`master/leader.rs`) carries plans out.
//!
//! ```text
//! event ─ Row::keys ─▶ key ─ Row::plan(root, key, cx) ─▶ Plan { commands, again, effects } ─ propose ─▶ outcomes
//!                       ▲                                                                      │
//!                       └──────── only after every outcome is applied to the local root ───────┘
//! ```
//!
//! **Invariant:** a plan depends on the state and the clock alone. What a controller needs to remember it writes into an
//! object, so a new leader misses nothing, and planning again after the plan was applied yields nothing.
//!
//! # Glossary
//!
//! | Word | Means |
//! |---|---|
//! | root | one immutable `state::State` at one revision |
//! | record | one stored version of one object: header and body |
//! | key | where an object stands: group, resource, namespace, name. Some rows use the key of no object, with an empty name, for "all of them" |
//! | plan | a pure function that returns what to do; also its result |
//! | command | one atomic change with its preconditions; the only way anything changes |
//! | claim | a name held by at most one object of the store: a cluster IP, a node port, a pod CIDR |
//! | row | one controller: what wakes it, which keys, its plan |
//! | effect | something to do outside the cluster, journalled as a command first |
//! | placement | the scheduler's answer for one pod: a node, or a reason per filter |
//! | usage | what the pods of each node ask for; derived from the root and its events, never stored |
//! | heard | how long each node has been silent, as the sessions of all masters report it |
//! | grace | a silence or a termination time that is still forgiven |
//! | claimed pods | the pods whose controller is this ReplicaSet, whatever their labels |
//! | victims | the pods a ReplicaSet that has too many deletes, in order |
//! | uses | what an object takes of its namespace: so much cpu, a node port, one of its kind |
//! | bounds | how much of a thing all objects of a namespace may take together: what a ResourceQuota says |
//! | rule | what a role allows: verbs on resources, or on paths that are none |
//! | held | the rules that some binding gives a user, in a namespace or everywhere |
//! | index | roles and bindings of one root by whom they bind; derived, never stored |
//! | new, old ReplicaSet | the one whose template equals the Deployment's, and the others |

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ipnet::Ipv4Net;
use jiff::Timestamp;
use state::{Command, Event, Key, State};

pub mod admission;
pub mod authz;
pub mod controllers;
mod emit;
#[cfg(test)]
mod harness;
pub mod invariants;
mod json;
mod lease;
pub mod nodelife;
pub mod rbac;
pub mod record;
pub mod scheduler;
pub mod seal;
pub mod tokens;

/// What the cluster's operator chose, and what the leader knows of the masters. Cheap to share.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Silence after which a node's readiness is Unknown.
    pub node_grace: Duration,
    /// `tolerationSeconds` that admission gives pods for not-ready and unreachable nodes.
    pub toleration_s: i64,
    /// Pod addresses; each node gets one /24 of it.
    pub cluster_cidr: Ipv4Net,
    /// Addresses of Services; the first one is the API's.
    pub service_cidr: Ipv4Net,
    /// How long Event objects live.
    pub event_ttl: Duration,
    /// The API addresses of all masters, for the endpoints of the Service `kubernetes`.
    pub masters: Vec<std::net::SocketAddr>,
    /// The certificates (PEM) a client trusts the API by: ConfigMap `kube-root-ca.crt` of every namespace.
    pub root_ca_pem: String,
    /// Seals Secrets; absent where nothing is kept (tests, simulations).
    pub sealer: Option<Arc<dyn seal::Sealer>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            node_grace: Duration::from_secs(5),
            toleration_s: 5,
            cluster_cidr: Ipv4Net::new_assert(std::net::Ipv4Addr::new(10, 244, 0, 0), 16),
            service_cidr: Ipv4Net::new_assert(std::net::Ipv4Addr::new(10, 96, 0, 0), 16),
            event_ttl: Duration::from_secs(3600),
            masters: Vec::new(),
            root_ca_pem: String::new(),
            sealer: None,
        }
    }
}

/// Seeds for contexts, one after another, that none of them repeats: two objects of one uid would refuse each other.
///
/// A context walks on from its seed in steps of its own. The steps here are of another length, so that no walk of
/// thousands of steps meets another one's within 10¹⁵ contexts.
#[derive(Debug)]
pub struct Seeds(AtomicU64);

impl Seeds {
    const STEP: u64 = 0xa076_1d64_78bd_642f;

    pub fn new(first: u64) -> Self {
        Self(AtomicU64::new(first))
    }

    /// The next seed.
    pub fn draw(&self) -> u64 {
        self.0.fetch_add(Self::STEP, Ordering::Relaxed)
    }
}

/// What a plan may depend on beside the state: the time, a seed for uids and names, and the settings.
#[derive(Clone, Debug)]
pub struct Context {
    pub now: Timestamp,
    pub seed: u64,
    pub settings: Arc<Settings>,
}

impl Context {
    pub fn new(now: Timestamp, seed: u64, settings: Arc<Settings>) -> Self {
        Self { now, seed, settings }
    }

    /// The next number of the seeded sequence (splitmix64).
    pub fn draw(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A fresh uid: a version 4 UUID.
    pub fn uid(&mut self) -> String {
        objects::meta::uuid(self.draw(), self.draw())
    }

    /// Five characters for the end of a generated name.
    pub fn suffix(&mut self) -> String {
        objects::meta::suffix(self.draw())
    }

    pub fn now_ms(&self) -> i64 {
        self.now.as_millisecond()
    }

    /// The time as `metadata` and conditions have it: RFC 3339 in whole seconds.
    pub fn time(&self) -> String {
        objects::meta::format_time(self.now)
    }

    /// The time as Leases have it: RFC 3339 with microseconds.
    pub fn micro_time(&self) -> String {
        objects::meta::format_micro_time(self.now)
    }
}

/// What to do for one key.
#[derive(Debug, Default)]
pub struct Plan {
    /// Each is proposed on its own and has its own outcome; the proposer stamps proposal id, term and time. They stand in
    /// an order in which the earlier ones matter most.
    pub commands: Vec<Command>,
    /// Look again after this time even if nothing changes.
    pub again: Option<Duration>,
    /// What to do outside, only once the commands are applied and under a lease checked just before.
    pub effects: Vec<Effect>,
}

impl Plan {
    /// The earlier of the present time to look again and `after`; at least once a day, however far off that is.
    pub(crate) fn look_again(&mut self, after: Duration) {
        let after = after.min(Duration::from_secs(24 * 3600));
        self.again = Some(self.again.map_or(after, |present| present.min(after)));
    }
}

/// Something to do outside the cluster. Cloud calls come with the cloud controller; until then there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {}

/// One controller. The leader loop keeps a queue of keys per row, plans one key at a time, and does not plan a key again
/// before every outcome of its last plan is applied to the local root.
#[derive(Clone, Copy)]
pub struct Row {
    pub name: &'static str,
    /// The (group, resource) pairs whose events wake it; none means all.
    pub watches: &'static [(&'static str, &'static str)],
    /// The keys one event concerns. Only a hint: what changed is never passed on.
    pub keys: fn(&State, &Event) -> Vec<Key>,
    pub plan: fn(&State, &Key, &mut Context) -> Plan,
    /// Every key there is something to look at for: planned when a term begins.
    pub resync: fn(&State) -> Vec<Key>,
}

impl Row {
    /// Whether events of this resource wake the row.
    pub fn watches(&self, group: &str, resource: &str) -> bool {
        self.watches.is_empty() || self.watches.iter().any(|(g, r)| *g == group && *r == resource)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_contexts_draw_the_same() {
        let seeds = Seeds::new(7);
        let mut drawn = std::collections::BTreeSet::new();
        for _ in 0..2000 {
            let mut context = Context::new(Timestamp::UNIX_EPOCH, seeds.draw(), Arc::default());
            assert!((0..50).all(|_| drawn.insert(context.draw())), "drawn before");
        }
    }
}

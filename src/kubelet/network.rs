//! The node's pod network: addresses for pods, the bridge, and the way between bridges of one cluster on one engine.
//!
//! Not here: routes between machines, Services, policies (the proxy). Invariants: an address is held by one pod at a time and stays
//! with it over restarts; firewall rules name only this cluster's own interfaces.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use tokio::process::Command;

use crate::runtime::Bridge;

/// All bridges of a cluster begin alike, so that one rule opens them to each other.
fn interface_prefix(cluster_id: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, cluster_id.as_bytes());
    format!("h{}n", hex::encode(&digest.as_ref()[..3]))
}

/// The node's bridge on its pod CIDR; the first address is the host's.
pub fn bridge(cluster_id: &str, hash: &str, subnet: Ipv4Net) -> Bridge {
    let subnet = subnet.trunc();
    Bridge {
        name: format!("{hash}-pods"),
        interface: format!("{}{}", interface_prefix(cluster_id), &hash[..hash.len().min(7)]),
        subnet,
        gateway: Ipv4Addr::from(u32::from(subnet.network()).saturating_add(1)),
    }
}

/// Which pod has which address.
#[derive(Debug, Default)]
pub struct Addresses {
    held: BTreeMap<Ipv4Addr, String>,
    next: u32,
}

impl Addresses {
    /// Takes the address that the pod had.
    pub fn hold(&mut self, address: Ipv4Addr, uid: &str) -> bool {
        let owner = self.held.entry(address).or_insert_with(|| uid.to_owned());
        owner == uid
    }

    /// The pod's address, or the next free one of the network; released addresses are used again last.
    pub fn take(&mut self, subnet: Ipv4Net, uid: &str) -> Option<Ipv4Addr> {
        if let Some((address, _)) = self.held.iter().find(|(address, owner)| *owner == uid && subnet.contains(*address))
        {
            return Some(*address);
        }
        self.held.retain(|_, owner| owner != uid);
        let size = 1_u32.checked_shl(u32::from(32 - subnet.prefix_len())).unwrap_or(u32::MAX);
        let first = u32::from(subnet.network());
        // The network, the host's and the broadcast address are no pod's.
        let usable = size.checked_sub(3).filter(|usable| *usable > 0)?;
        for _ in 0..usable {
            let address = Ipv4Addr::from(first + 2 + self.next % usable);
            self.next = self.next.wrapping_add(1);
            if let Entry::Vacant(free) = self.held.entry(address) {
                free.insert(uid.to_owned());
                return Some(address);
            }
        }
        None
    }

    /// Gives the address to nobody any more, until the kubelet starts anew.
    pub fn avoid(&mut self, address: Ipv4Addr) {
        self.held.insert(address, String::new());
    }

    pub fn release(&mut self, uid: &str) {
        self.held.retain(|_, owner| owner != uid);
    }
}

/// A route of this machine that the pod network would shadow: (interface, network).
pub fn overlap(routes: &str, own_prefix: &str, subnet: Ipv4Net) -> Option<(String, Ipv4Net)> {
    // /proc/net/route: Iface Destination Gateway Flags RefCnt Use Metric Mask …, addresses in hex, little endian.
    routes.lines().skip(1).find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let address =
            |at: usize| u32::from_str_radix(words.get(at)?, 16).ok().map(|raw| Ipv4Addr::from(raw.swap_bytes()));
        let (interface, network, mask) = (*words.first()?, address(1)?, address(7)?);
        let network = Ipv4Net::with_netmask(network, mask).ok()?;
        let ours = interface.starts_with(own_prefix);
        let wide = network.prefix_len() == 0;
        let meets = network.contains(&subnet) || subnet.contains(&network);
        (!ours && !wide && meets).then(|| (interface.to_owned(), network))
    })
}

/// Refuses a pod network that this machine already uses for something else.
pub fn check_overlap(cluster_id: &str, subnet: Ipv4Net) -> Result<(), String> {
    let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    match overlap(&routes, &interface_prefix(cluster_id), subnet) {
        Some((interface, network)) => Err(format!(
            "the pod network {subnet} overlaps with {network} on interface {interface} of this machine: create the cluster with another --cluster-cidr, or remove that network"
        )),
        None => Ok(()),
    }
}

fn rule(cluster_id: &str) -> Vec<String> {
    let bridges = format!("{}+", interface_prefix(cluster_id));
    ["-i", &bridges, "-o", &bridges, "-j", "ACCEPT"].map(str::to_owned).to_vec()
}

async fn iptables(operation: &str, cluster_id: &str) -> Result<bool, String> {
    let mut arguments = vec!["-w".to_owned(), operation.to_owned(), "DOCKER-USER".to_owned()];
    arguments.extend(rule(cluster_id));
    let output =
        Command::new("iptables").args(&arguments).output().await.map_err(|e| format!("starting iptables: {e}"))?;
    if output.status.success() {
        return Ok(true);
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    // An engine that leaves the firewall alone has no such chain, and drops nothing between bridges.
    let no_chain = said.contains("No chain") || said.contains("does not exist") || said.contains("incompatible");
    let no_rule = said.contains("Bad rule") || said.contains("matching rule");
    if no_chain || no_rule { Ok(false) } else { Err(format!("iptables {}: {said}", arguments.join(" "))) }
}

/// Lets pods of this cluster's nodes on this engine reach each other. Does nothing when it is so already.
pub async fn open(cluster_id: &str) -> Result<(), String> {
    if iptables("-C", cluster_id).await? {
        return Ok(());
    }
    iptables("-I", cluster_id).await.map(|_| ())
}

/// Takes the rule back.
pub async fn close(cluster_id: &str) -> Result<(), String> {
    while iptables("-D", cluster_id).await? {}
    Ok(())
}

/// The address of this machine towards `peer` (host:port), as other machines see it.
pub fn address_towards(peer: &str) -> Option<std::net::IpAddr> {
    // A datagram socket chooses its source address on connect without sending anything.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect(peer).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_unique_and_kept() {
        let subnet: Ipv4Net = "10.1.0.0/29".parse().expect("a network");
        let mut addresses = Addresses::default();
        assert!(addresses.hold(Ipv4Addr::new(10, 1, 0, 3), "kept"));
        assert!(!addresses.hold(Ipv4Addr::new(10, 1, 0, 3), "other"));
        let taken: Vec<_> = ["a", "b", "c", "d"].map(|uid| addresses.take(subnet, uid)).to_vec();
        let at = |last| Some(Ipv4Addr::new(10, 1, 0, last));
        assert_eq!(taken, [at(2), at(4), at(5), at(6)]);
        assert_eq!(addresses.take(subnet, "a"), at(2));
        assert_eq!(addresses.take(subnet, "kept"), at(3));
        assert_eq!(addresses.take(subnet, "e"), None);
        addresses.release("b");
        assert_eq!(addresses.take(subnet, "e"), at(4));
        addresses.avoid(Ipv4Addr::new(10, 1, 0, 4));
        assert_eq!(addresses.take(subnet, "e"), None, "its address is another's, and no other is free");
        assert_eq!(addresses.take("10.2.0.0/31".parse().expect("a network"), "x"), None);
    }

    #[test]
    fn overlaps() {
        let routes = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
            eth0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
            h123456n1\t0001010A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        for (subnet, expect) in [
            ("10.0.0.0/16", Some("eth0")),
            ("10.0.0.128/25", Some("eth0")),
            ("10.1.1.0/24", None),
            ("192.168.0.0/24", None),
        ] {
            let found = overlap(routes, "h123456n", subnet.parse().expect("a network"));
            assert_eq!(found.as_ref().map(|(interface, _)| interface.as_str()), expect, "{subnet}");
        }
    }

    #[test]
    fn interface_names_fit_the_kernel() {
        let bridge = bridge("some-cluster", "0123abcd", "10.1.2.0/24".parse().expect("a network"));
        assert!(bridge.interface.len() <= 15, "{}", bridge.interface);
        assert_eq!(bridge.gateway, Ipv4Addr::new(10, 1, 2, 1));
    }
}

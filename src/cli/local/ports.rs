//! The ports of a local cluster: chosen free, and kept from other clusters on this machine while nobody listens there yet, or
//! just now, because its process was killed.
//!
//! A port is kept by a socket that is bound to it and does not listen. Bound without SO_REUSEADDR it finds out whether
//! anybody else has the port, other keepers included; allowed to be reused from then on, it lets in the process that the
//! port is for, since every server binds with SO_REUSEADDR.
//!
//! **Invariant:** what two clusters choose at the same time differs. A lost master's port is taken back without asking who keeps
//! it: that is its own cluster's forwarder, and another only if that one was down too.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Result, bail};
use rand::Rng;
use tokio::net::TcpSocket;

/// Ports are taken from here, less the ephemeral range: an outgoing connection must never sit on a port a master wants
/// back after a restart. NodePorts begin at 30000.
const RANGE: std::ops::Range<u16> = 10_000..30_000;

/// Free ports, each handed out once and kept until this is dropped.
pub struct Ports {
    ephemeral: std::ops::RangeInclusive<u16>,
    taken: Vec<u16>,
    kept: Keeper,
}

impl Ports {
    /// `taken` are the ports that are not handed out, free or not.
    pub fn new(taken: Vec<u16>) -> Self {
        // Where the file cannot be read, Linux's default holds.
        let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
        Self { ephemeral: ephemeral(&text), taken, kept: Keeper::default() }
    }

    /// # Errors
    /// When all are in use.
    pub fn next(&mut self) -> Result<u16> {
        let start = rand::rng().random_range(RANGE);
        for port in (start..RANGE.end).chain(RANGE.start..start) {
            if !self.taken.contains(&port) && !self.ephemeral.contains(&port) && self.kept.choose(port) {
                self.taken.push(port);
                return Ok(port);
            }
        }
        bail!(
            "no free port between {} and {} outside the ephemeral range; narrow net.ipv4.ip_local_port_range",
            RANGE.start,
            RANGE.end
        )
    }

    /// A port chosen earlier that nobody listens on yet: this one, or another if somebody took it meanwhile.
    pub fn again(&mut self, port: u16) -> Result<u16> {
        if port != 0 && self.kept.choose(port) { Ok(port) } else { self.next() }
    }

    /// The port of a process that is gone and comes back, which its cluster has kept for it: this one, or another if somebody
    /// listens there.
    pub fn back(&mut self, port: u16) -> Result<u16> {
        if port != 0 && self.kept.share(port) { Ok(port) } else { self.next() }
    }
}

/// Sockets that keep ports.
#[derive(Default)]
pub struct Keeper(BTreeMap<u16, TcpSocket>);

impl Keeper {
    /// Keeps a port that nobody has. False: somebody has it.
    fn choose(&mut self, port: u16) -> bool {
        self.bind(port, false)
    }

    /// Keeps a port for the process that it is for, unless somebody listens there; who keeps it too does not matter.
    pub fn share(&mut self, port: u16) -> bool {
        self.bind(port, true)
    }

    fn bind(&mut self, port: u16, shared: bool) -> bool {
        if self.0.contains_key(&port) {
            return true;
        }
        let bound = TcpSocket::new_v4().and_then(|socket| {
            socket.set_reuseaddr(shared)?;
            socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
            socket.set_reuseaddr(true)?;
            Ok(socket)
        });
        let kept = bound.is_ok();
        self.0.extend(bound.ok().map(|socket| (port, socket)));
        kept
    }
}

fn ephemeral(text: &str) -> std::ops::RangeInclusive<u16> {
    let mut numbers = text.split_whitespace().filter_map(|number| number.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(low), Some(high)) => low..=high,
        _ => 32_768..=60_999,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_chosen_port_is_kept_for_its_process_and_from_every_other_cluster() {
        let mut ports = Ports::new(Vec::new());
        let port = ports.next().expect("a port");
        let mut other = Ports::new(Vec::new());
        assert_ne!(other.again(port).expect("another"), port, "chosen already");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("its own process may listen");
        drop(ports);
        assert_ne!(other.again(port).expect("another"), port, "listened on");
        let mut keeper = Keeper::default();
        keeper.share(port);
        drop(listener);
        keeper.share(port);
        assert_ne!(other.again(port).expect("another"), port, "kept while its process is dead");
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("it may come back");
        drop(keeper);
        assert_eq!(other.again(port).expect("free"), port);
    }

    #[test]
    fn no_port_lies_in_the_ephemeral_range() {
        let mut ports = Ports { ephemeral: ephemeral("10000\t29990\n"), ..Ports::new(Vec::new()) };
        for _ in 0..3 {
            assert!(ports.next().expect("port") > 29_990);
        }
        assert_eq!(ephemeral(""), 32_768..=60_999);
    }
}

//! What `D/local.json` remembers of a local cluster: names and ports, chosen once. No process is touched here.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rand::Rng;
use serde::{Deserialize, Serialize};

use super::process::Process;

const FILE: &str = "local.json";
/// Ports are taken from here, less the ephemeral range: an outgoing connection must never sit on a port a master wants
/// back after a restart. NodePorts begin at 30000.
const PORTS: std::ops::Range<u16> = 10_000..30_000;

/// A local cluster's directory and what is in it.
#[derive(Clone, Debug)]
pub struct Layout {
    pub dir: PathBuf,
    pub plan: Plan,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Plan {
    /// Where the forwarder listens, and what `admin.kubeconfig` names.
    pub port: u16,
    pub masters: Vec<Master>,
    pub nodes: Vec<Node>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Master {
    pub name: String,
    pub api: u16,
    pub peer: u16,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Node {
    pub name: String,
}

impl Master {
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.api)
    }
}

impl Layout {
    /// The directory of the cluster people mean when they name none.
    pub fn default_dir() -> PathBuf {
        std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from).join(".hactl/local")
    }

    pub fn exists(dir: &Path) -> bool {
        dir.join(FILE).exists()
    }

    pub fn load(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                bail!("there is no local cluster in {}; make one with `hactl local up --dir {0}`", dir.display())
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let plan = serde_json::from_slice(&text)
            .with_context(|| format!("{} is damaged; `hactl local down --delete` starts over", path.display()))?;
        Ok(Self { dir: std::fs::canonicalize(dir)?, plan })
    }

    /// Loads the layout, or plans one, and makes it have at least the given numbers of masters and nodes.
    pub fn load_or_plan(dir: &Path, masters: usize, nodes: usize) -> Result<Self> {
        std::fs::create_dir_all(dir)
            .with_context(|| format!("cannot create {}; choose another place with --dir", dir.display()))?;
        let mut layout = if Self::exists(dir) {
            Self::load(dir)?
        } else {
            Self { dir: std::fs::canonicalize(dir)?, plan: Plan::default() }
        };
        let mut ports = Ports::new(layout.plan.taken())?;
        let plan = &mut layout.plan;
        if plan.port == 0 {
            plan.port = ports.next()?;
        }
        for number in plan.masters.len() + 1..=masters {
            plan.masters.push(Master { name: format!("master-{number}"), api: ports.next()?, peer: ports.next()? });
        }
        for number in plan.nodes.len() + 1..=nodes {
            plan.nodes.push(Node { name: format!("node-{number}") });
        }
        layout.save()?;
        Ok(layout)
    }

    fn save(&self) -> Result<()> {
        let text = serde_json::to_vec_pretty(&self.plan)?;
        let path = self.dir.join(FILE);
        let draft = self.dir.join(".local.json");
        std::fs::write(&draft, text)
            .and_then(|()| std::fs::rename(&draft, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    pub fn data_dir(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub fn process(&self, name: &str) -> Process {
        Process::at(self.data_dir(name))
    }

    pub fn forwarder(&self) -> Process {
        self.process("forwarder")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("admin.kubeconfig")
    }

    pub fn is_node(&self, name: &str) -> bool {
        self.plan.nodes.iter().any(|node| node.name == name)
    }

    /// All names, masters first.
    pub fn names(&self) -> Vec<String> {
        let masters = self.plan.masters.iter().map(|master| master.name.clone());
        masters.chain(self.plan.nodes.iter().map(|node| node.name.clone())).collect()
    }

    /// # Errors
    /// Lists the names there are.
    pub fn check_name(&self, name: &str) -> Result<()> {
        let names = self.names();
        if names.iter().any(|known| known == name) {
            return Ok(());
        }
        bail!("there is no `{name}` in this cluster; there are {}", names.join(", "))
    }
}

impl Plan {
    fn taken(&self) -> Vec<u16> {
        let masters = self.masters.iter().flat_map(|master| [master.api, master.peer]);
        masters.chain([self.port]).collect()
    }
}

/// Free ports, each handed out once.
struct Ports {
    ephemeral: std::ops::RangeInclusive<u16>,
    taken: Vec<u16>,
}

impl Ports {
    fn new(taken: Vec<u16>) -> Result<Self> {
        // Where the file cannot be read, Linux's default holds.
        let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
        Ok(Self { ephemeral: ephemeral(&text), taken })
    }

    fn next(&mut self) -> Result<u16> {
        let start = rand::rng().random_range(PORTS);
        let free = (start..PORTS.end).chain(PORTS.start..start).find(|port| {
            !self.taken.contains(port)
                && !self.ephemeral.contains(port)
                && TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()
        });
        let Some(port) = free else {
            bail!(
                "no free port between {} and {} outside the ephemeral range; narrow net.ipv4.ip_local_port_range",
                PORTS.start,
                PORTS.end
            )
        };
        self.taken.push(port);
        Ok(port)
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
    use super::*;

    #[test]
    fn ports_are_distinct_and_kept() {
        let dir = tempfile::tempdir().expect("dir");
        let first = Layout::load_or_plan(dir.path(), 3, 2).expect("plan");
        let mut ports = first.plan.taken();
        assert_eq!(ports.len(), 7);
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 7, "distinct");
        let again = Layout::load_or_plan(dir.path(), 3, 3).expect("again");
        assert_eq!(again.plan.taken(), first.plan.taken());
        assert_eq!(again.names(), ["master-1", "master-2", "master-3", "node-1", "node-2", "node-3"]);
    }

    #[test]
    fn no_port_lies_in_the_ephemeral_range() {
        let mut ports = Ports { ephemeral: ephemeral("10000\t29990\n"), taken: vec![] };
        for _ in 0..3 {
            assert!(ports.next().expect("port") > 29_990);
        }
        assert_eq!(ephemeral(""), 32_768..=60_999);
    }
}

//! What `D/local.json` remembers of a local cluster: names and ports, chosen once. No process is touched here.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::super::installation::Installation;
use super::ports::Ports;
use super::process::Process;

const FILE: &str = "local.json";

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

    /// Loads the layout, or plans one, and makes it have at least the given numbers of masters and nodes. Ports that nobody
    /// knows yet are chosen anew if somebody else took them since; all of them are kept until the `Ports` are dropped. A master of
    /// a formed cluster whose data is lost joins again where it was, for those who know it there.
    pub fn load_or_plan(dir: &Path, masters: usize, nodes: usize) -> Result<(Self, Ports)> {
        let mut layout = if Self::exists(dir) {
            Self::load(dir)?
        } else {
            Self { dir: std::fs::canonicalize(dir)?, plan: Plan::default() }
        };
        let mut ports = Ports::new(layout.plan.taken());
        // The kubeconfig names the forwarder's port, and the others know a master's once it has joined.
        let formed = layout.kubeconfig().exists();
        if !formed {
            layout.plan.port = ports.again(layout.plan.port)?;
        }
        let made: Vec<bool> =
            layout.plan.masters.iter().map(|master| Installation::exists(&layout.data_dir(&master.name))).collect();
        let plan = &mut layout.plan;
        for (master, _) in plan.masters.iter_mut().zip(made).filter(|(_, made)| !made) {
            let mut chosen = |port| if formed { ports.back(port) } else { ports.again(port) };
            (master.api, master.peer) = (chosen(master.api)?, chosen(master.peer)?);
        }
        for number in plan.masters.len() + 1..=masters {
            plan.masters.push(Master { name: format!("master-{number}"), api: ports.next()?, peer: ports.next()? });
        }
        for number in plan.nodes.len() + 1..=nodes {
            plan.nodes.push(Node { name: format!("node-{number}") });
        }
        layout.save()?;
        Ok((layout, ports))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_distinct_and_kept() {
        let dir = tempfile::tempdir().expect("dir");
        let (first, kept) = Layout::load_or_plan(dir.path(), 3, 2).expect("plan");
        let mut ports = first.plan.taken();
        assert_eq!(ports.len(), 7);
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 7, "distinct");
        drop(kept);
        let (again, kept) = Layout::load_or_plan(dir.path(), 3, 3).expect("again");
        assert_eq!(again.plan.taken(), first.plan.taken());
        assert_eq!(again.names(), ["master-1", "master-2", "master-3", "node-1", "node-2", "node-3"]);
        drop(kept);

        // Of what was planned only, a port that somebody took is chosen anew; what a master joined with stays.
        let [one, two] = [&first.plan.masters[0], &first.plan.masters[1]];
        std::fs::create_dir(first.data_dir(&one.name)).expect("dir");
        std::fs::write(first.data_dir(&one.name).join("hactl.json"), "{}").expect("write");
        let taken = [one.api, two.peer].map(|port| std::net::TcpListener::bind(("127.0.0.1", port)).expect("free"));
        let (third, _kept) = Layout::load_or_plan(dir.path(), 3, 2).expect("again");
        drop(taken);
        let [same, moved] = [&third.plan.masters[0], &third.plan.masters[1]];
        assert_eq!((same.api, same.peer, moved.api), (one.api, one.peer, two.api));
        assert_ne!(moved.peer, two.peer);
        assert_eq!(Layout::load(dir.path()).expect("kept").plan.taken(), third.plan.taken());
    }

    #[test]
    fn a_master_that_lost_its_data_keeps_the_ports_that_its_cluster_kept_for_it() {
        let dir = tempfile::tempdir().expect("dir");
        let (first, kept) = Layout::load_or_plan(dir.path(), 3, 0).expect("plan");
        drop(kept);
        std::fs::write(first.kubeconfig(), "").expect("write");
        let (lost, moved) = (&first.plan.masters[0], &first.plan.masters[1]);
        let mut forwarder = super::super::ports::Keeper::default();
        assert!(forwarder.share(lost.api) && forwarder.share(lost.peer));
        let taken = std::net::TcpListener::bind(("127.0.0.1", moved.api)).expect("free");
        let (again, _kept) = Layout::load_or_plan(dir.path(), 3, 0).expect("again");
        drop(taken);
        assert_eq!((again.plan.masters[0].api, again.plan.masters[0].peer), (lost.api, lost.peer));
        assert_ne!(again.plan.masters[1].api, moved.api, "somebody listens there");
        assert_eq!(again.plan.masters[1].peer, moved.peer);
    }
}

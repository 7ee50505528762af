//! The nodes of one simulated cluster: real kubelets over container engines in memory, which outlive them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::{FutureExt as _, StreamExt as _};
use kubelet::runtime::hollow::Hollow;
use kubelet::runtime::{Runtime as _, State, label};
use kubelet::{Capacity, Config, Downs, Figures, Host, Identity, Uplink, Ways};
use rpc::client::Masters;
use rpc::pb;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::control::{self, CLUSTER};
use super::world::World;

/// On the network nodes stand behind the masters.
const FIRST: u64 = 1001;
pub const IMAGES: [&str; 2] = ["app:1", "app:2"];
const CONNECT_LIMIT: Duration = Duration::from_millis(500);

#[derive(Default)]
pub struct Nodes(Mutex<BTreeMap<u64, Node>>);

struct Node {
    engine: Arc<Hollow>,
    machine: Arc<Machine>,
    data_dir: PathBuf,
    running: Option<Running>,
    held: u32,
}

/// The machine under a node: what it says of itself is not this machine's.
#[derive(Default)]
pub struct Machine {
    boots: AtomicU64,
    full: AtomicBool,
    told_full: AtomicU64,
}

const DISK_BYTES: u64 = 100 << 30;

impl Machine {
    /// Leaves hardly any room on the disk, or makes room again.
    pub fn fill(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    /// How often it has told its kubelet of hardly any room.
    pub fn told_full(&self) -> u64 {
        self.told_full.load(Ordering::Relaxed)
    }
}

impl Host for Machine {
    fn figures(&self, _: &Path) -> Figures {
        let full = self.full.load(Ordering::Relaxed);
        self.told_full.fetch_add(u64::from(full), Ordering::Relaxed);
        Figures {
            cores: 4,
            memory_bytes: 8 << 30,
            memory_free_bytes: Some(4 << 30),
            disk_bytes: DISK_BYTES,
            disk_free_bytes: if full { DISK_BYTES / 100 } else { DISK_BYTES / 2 },
            processes: 100,
            processes_max: 32_768,
            cpu_busy: std::time::Duration::ZERO,
        }
    }

    fn identity(&self) -> Identity {
        let boot_id = format!("boot-{}", self.boots.load(Ordering::Relaxed));
        Identity { boot_id, ..Identity::default() }
    }
}

struct Running {
    way: Arc<Way>,
    gone: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn name(id: u64) -> String {
    format!("n{}", id - FIRST + 1)
}

fn uid(id: u64) -> String {
    format!("uid-of-n{}", id - FIRST + 1)
}

impl Nodes {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Node>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn ids(&self) -> Vec<u64> {
        self.lock().keys().copied().collect()
    }

    pub fn engine(&self, id: u64) -> Option<Arc<Hollow>> {
        Some(self.lock().get(&id)?.engine.clone())
    }

    /// Whether its kubelet runs.
    pub fn runs(&self, id: u64) -> bool {
        self.lock().get(&id).is_some_and(|node| node.running.is_some())
    }

    /// The masters that a running kubelet knows.
    fn known(&self, id: u64) -> Option<Vec<String>> {
        Some(self.lock().get(&id)?.running.as_ref()?.way.addresses())
    }

    pub fn machine(&self, id: u64) -> Option<Arc<Machine>> {
        Some(self.lock().get(&id)?.machine.clone())
    }

    /// A container of a pod that runs in two places at this moment. An engine that hangs does not say what it runs.
    pub fn runs_twice(&self) -> Option<String> {
        let mut seen: BTreeMap<(String, String), u64> = BTreeMap::new();
        for (id, node) in self.lock().iter() {
            let Some(Ok(containers)) = node.engine.list(None).now_or_never() else { continue };
            for container in containers.iter().filter(|container| container.state == State::Running) {
                let part = (container.label(label::POD_UID).to_owned(), container.label(label::CONTAINER).to_owned());
                if let Some(other) = seen.insert(part.clone(), *id) {
                    return Some(format!("{} of pod {} on {} and {}", part.1, part.0, name(other), name(*id)));
                }
            }
        }
        None
    }

    /// Removes what the kubelets wrote to disk.
    pub fn clean_up(&self) {
        for node in self.lock().values() {
            // A directory in the system's temporary one: left behind at worst.
            let _ = std::fs::remove_dir_all(&node.data_dir);
        }
    }
}

/// Where kubelets keep their files: in memory, if the system has such a place.
fn files() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}

impl World {
    /// Makes so many nodes and starts their kubelets.
    pub async fn add_nodes(self: &Arc<Self>, count: u64) {
        for id in FIRST..FIRST + count {
            let node = master::sessions::new_node(&name(id), &uid(id), self.wall(1)).expect("a good name");
            let first = self.process(1).expect("the first master runs");
            first.replica.propose(node).await.expect("a whole cluster takes a write");
            let engine = Arc::new(Hollow::new(CLUSTER, &uid(id)));
            IMAGES.iter().for_each(|image| engine.publish(image));
            let data_dir = files().join(format!("hactl-sim-{}-{}", std::process::id(), name(id)));
            let node = Node { engine, machine: Arc::default(), data_dir, running: None, held: 0 };
            self.nodes.lock().insert(id, node);
            self.start_node(id);
        }
    }

    pub fn start_node(self: &Arc<Self>, id: u64) {
        let mut nodes = self.nodes.lock();
        let Some(node) = nodes.get_mut(&id).filter(|node| node.running.is_none() && node.held == 0) else { return };
        self.trace.say(format_args!("{} runs", name(id)));
        let gone = CancellationToken::new();
        let addresses = self.ids().into_iter().map(control::address).collect::<Vec<_>>();
        let config = Config {
            data_dir: node.data_dir.clone(),
            cluster_id: CLUSTER.into(),
            epoch: 1,
            node_name: name(id),
            node_uid: uid(id),
            docker_host: String::new(),
            masters: addresses.clone(),
            node_ip: Some(std::net::Ipv4Addr::new(198, 51, 100, (id - FIRST + 1) as u8).into()),
            capacity: Capacity { cpu_millis: Some(4000), memory_bytes: Some(8 << 30), pods: Some(110) },
            labels: BTreeMap::new(),
        };
        let way = Arc::new(Way {
            world: self.clone(),
            node: id,
            gone: gone.clone(),
            next: AtomicUsize::new(id as usize),
            addresses: Mutex::new(addresses),
        });
        let ways = Ways { runtime: node.engine.clone(), uplink: way.clone(), host: node.machine.clone() };
        let (world, stop) = (self.clone(), gone.clone());
        let task = tokio::spawn(async move {
            if let Err(error) = kubelet::run_over(config, ways, stop.clone()).await
                && !stop.is_cancelled()
            {
                world.laws.broken("a kubelet runs", format!("{}: {error}", name(id)));
            }
        });
        node.running = Some(Running { way, gone, task });
    }

    /// As `kill -9` of the kubelet; its containers run on. Whether it ran.
    pub fn kill_node(&self, id: u64) -> bool {
        let mut nodes = self.nodes.lock();
        let Some(running) = nodes.get_mut(&id).and_then(|node| node.running.take()) else { return false };
        self.trace.say(format_args!("{} is killed", name(id)));
        running.gone.cancel();
        running.task.abort();
        true
    }

    /// The machine stops, and all its containers with it. Whether its kubelet ran.
    pub async fn stop_machine(&self, id: u64) -> bool {
        let ran = self.kill_node(id);
        let Some((engine, machine)) = self.nodes.engine(id).zip(self.nodes.machine(id)) else { return false };
        machine.boots.fetch_add(1, Ordering::Relaxed);
        for container in engine.list(None).await.unwrap_or_default() {
            engine.end(&container.id, 137);
        }
        ran
    }

    pub fn hold_node(&self, id: u64) {
        if let Some(node) = self.nodes.lock().get_mut(&id) {
            node.held += 1;
        }
    }

    pub fn release_node(self: &Arc<Self>, id: u64) {
        if let Some(node) = self.nodes.lock().get_mut(&id) {
            node.held = node.held.saturating_sub(1);
        }
        self.start_node(id);
    }

    pub fn heal_nodes(self: &Arc<Self>) {
        for id in self.nodes.ids() {
            if let Some(node) = self.nodes.lock().get_mut(&id) {
                node.held = 0;
                node.engine.hang(false);
                node.machine.fill(false);
            }
            // All masters that it knew were replaced while it was cut off: its operator tells it the present ones.
            let masters: Vec<String> = self.ids().into_iter().map(control::address).collect();
            if self.nodes.known(id).is_some_and(|known| !known.iter().any(|one| masters.contains(one))) {
                self.kill_node(id);
            }
            self.start_node(id);
        }
    }

    /// Whether every node runs exactly the pods that are bound to it, each being ready.
    pub async fn nodes_are_well(&self, root: &state::State) -> Result<(), String> {
        for id in self.nodes.ids() {
            let Some(engine) = self.nodes.engine(id) else { continue };
            let containers = engine.list(None).await.map_err(|error| format!("{}: {error}", name(id)))?;
            let runs: BTreeSet<&str> = containers
                .iter()
                .filter(|container| container.state == State::Running)
                .map(|container| container.label(label::POD_UID))
                .collect();
            let present: BTreeSet<&str> = containers.iter().map(|container| container.label(label::POD_UID)).collect();
            let bound: BTreeSet<&str> =
                root.on_node(&name(id)).filter_map(|key| root.get(key)).map(|pod| pod.header.uid.as_str()).collect();
            if runs != bound || present != bound {
                let orphans: Vec<_> = present.difference(&bound).collect();
                let missing: Vec<_> = bound.difference(&runs).collect();
                return Err(format!("{} has the orphans {orphans:?} and does not run {missing:?}", name(id)));
            }
        }
        Ok(())
    }
}

/// The way of one kubelet to the masters, over the simulated network.
struct Way {
    world: Arc<World>,
    node: u64,
    gone: CancellationToken,
    next: AtomicUsize,
    addresses: Mutex<Vec<String>>,
}

fn closed() -> Status {
    Status::unavailable("the connection was reset")
}

#[async_trait]
impl Uplink for Way {
    async fn open(&self, up: mpsc::Receiver<pb::NodeMessage>) -> Result<(String, Downs), String> {
        let addresses = Uplink::addresses(self);
        let net = &self.world.net;
        let mut up = Some(up);
        for _ in 0..addresses.len() {
            let address = &addresses[self.next.load(Ordering::Relaxed) % addresses.len()];
            let id = address.trim_start_matches('m').split(':').next().and_then(|id| id.parse().ok()).unwrap_or(0);
            let arrived = tokio::time::timeout(CONNECT_LIMIT, net.travel(self.node, id, "hello", 0)).await;
            let process = self.world.process(id).filter(|_| matches!(arrived, Ok(Ok(()))));
            let Some((process, up)) = process.and_then(|process| Some((process, up.take()?))) else {
                self.next.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let ends = [self.gone.clone(), process.gone.clone()];
            let up = net.carry((self.node, id), "up", ReceiverStream::new(up), ends.clone());
            let opened = tokio::select! {
                () = process.gone.cancelled() => Err(closed()),
                opened = process.control.sessions.open(name(self.node), uid(self.node), up) => opened,
            };
            let down = opened.map_err(|status| format!("{address}: {}", status.message()))?;
            let down = net.carry((id, self.node), "down", down, ends).map(|message| message?);
            return Ok((address.clone(), down.boxed()));
        }
        Err("no master can be reached".into())
    }

    fn move_on(&self) {
        self.next.fetch_add(1, Ordering::Relaxed);
    }

    fn addresses(&self) -> Vec<String> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_addresses(&self, addresses: Vec<String>) {
        *self.addresses.lock().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    fn dialler(&self) -> Option<Masters> {
        None
    }
}

#[cfg(test)]
mod tests;

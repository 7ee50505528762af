//! Starts and wires the parts of one node, and takes them away again.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rpc::pb;
use rpc::pki::Said;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::certificate::Keeper;
use crate::host::{Host, ThisMachine};
use crate::node::Machine;
use crate::runtime::docker::Docker;
use crate::runtime::{self, Bridge, Runtime};
use crate::saved::{Saved, Store};
use crate::session::Session;
use crate::shared::{BRIDGE_STARTING, Parts, Shared};
use crate::sync::{Pods, RETURN_WAIT, adopt, in_time};
use crate::uplink::Uplink;
use crate::{Config, Error, blocking, network, node, podspec, usage, volumes};

const NETWORK_RETRY: Duration = Duration::from_secs(5);
/// Assignments waiting while one is taken over.
const ASSIGNMENTS_MAX: usize = 16;

/// Runs the node until `shutdown`. Containers run on afterwards.
///
/// # Errors
/// When the data directory or the node's certificate cannot be read; a Docker Engine that is down is no error.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let docker = Docker::new(&config.docker_host, &config.cluster_id, &config.node_uid);
    run_on(config, Arc::new(docker), shutdown).await
}

/// The same on any runtime.
pub async fn run_on(config: Config, runtime: Arc<dyn Runtime>, shutdown: CancellationToken) -> Result<(), Error> {
    let (certificate, known) = Keeper::load(&config)?;
    let kept = certificate.run(shutdown.clone());
    let uplink = Arc::new(known.masters);
    let ways = Ways { runtime, uplink, host: Arc::new(ThisMachine) };
    let run = run_known(config, ways, known.told, known.said, shutdown);
    tokio::pin!(run);
    tokio::select! {
        ran = &mut run => ran,
        () = kept => run.await,
    }
}

/// What a kubelet sees of the world outside.
pub struct Ways {
    pub runtime: Arc<dyn Runtime>,
    pub uplink: Arc<dyn Uplink>,
    pub host: Arc<dyn Host>,
}

/// The same over any way to the masters, which knows of no certificates, and on any machine.
pub async fn run_over(config: Config, ways: Ways, shutdown: CancellationToken) -> Result<(), Error> {
    let said = watch::Sender::new(Said::default());
    run_known(config, ways, watch::Sender::new(None), said.subscribe(), shutdown).await
}

async fn run_known(
    mut config: Config,
    Ways { runtime, uplink, host }: Ways,
    told: watch::Sender<Option<pb::Trust>>,
    said: watch::Receiver<Said>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    std::fs::create_dir_all(&config.data_dir).map_err(|source| Error::Io { path: config.data_dir.clone(), source })?;
    // Docker is told absolute paths.
    config.data_dir =
        config.data_dir.canonicalize().map_err(|source| Error::Io { path: config.data_dir.clone(), source })?;
    let store = Store::open(&config.data_dir)?;
    let mut saved = store.load();
    if saved.epoch < config.epoch {
        saved.epoch = config.epoch;
    }
    let identity = host.identity();
    let boot_id = identity.boot_id.clone();
    let rebooted = !saved.boot_id.is_empty() && saved.boot_id != boot_id;
    saved.boot_id.clone_from(&boot_id);
    uplink.set_addresses(known_masters(&config, &saved));

    let machine = Machine::of(identity, &host.figures(&config.data_dir), &config.capacity);
    let (cidr, cidr_seen) = watch::channel(saved.pod_cidr.clone());
    let (bridge_made, bridge) = watch::channel(Err(BRIDGE_STARTING.to_owned()));
    let (engine, engine_seen) = watch::channel(String::new());
    let shared = Arc::new(Shared::new(Parts {
        runtime: runtime.clone(),
        data_dir: config.data_dir.clone(),
        hash: podspec::short_hash(&config.cluster_id, &config.node_uid),
        node_name: config.node_name.clone(),
        host_ip: host_ip(&config, uplink.as_ref()),
        cpu_millis: i64::try_from(machine.cpu_millis).unwrap_or(i64::MAX),
        memory_bytes: i64::try_from(machine.memory_bytes).unwrap_or(i64::MAX),
        bridge,
        saved,
    }));
    let recorder = &shared.recorder;
    recorder.node(&config.node_uid, "Normal", "Starting", "Starting kubelet.");
    if rebooted {
        let text = format!("Node {} has been rebooted, boot id: {boot_id}", config.node_name);
        recorder.node(&config.node_uid, "Warning", "Rebooted", &text);
    }
    let alive = match in_time(runtime.list(None)).await {
        Ok(containers) => {
            tracing::info!(containers = containers.len(), rebooted, "node starts");
            adopt(&shared, &containers)
        }
        Err(error) => {
            tracing::error!("{error}");
            engine.send_replace(error.to_string());
            BTreeSet::new()
        }
    };

    let (node_changed, node_seen) = watch::channel(Bytes::new());
    let (assignments, assigned) = mpsc::channel(ASSIGNMENTS_MAX);
    let (measured, usage_seen) = watch::channel(None);
    let session = Session {
        shared: shared.clone(),
        uplink,
        cluster_id: config.cluster_id.clone(),
        node_name: config.node_name.clone(),
        node_uid: config.node_uid.clone(),
        node: node_seen.clone(),
        assignments,
        trust: told,
        usage: usage_seen,
    };
    let pods = Pods::new(shared.clone(), cidr, engine);
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(pods.run(assigned, alive, RETURN_WAIT, shutdown.clone()));
    tasks.spawn(keep_network(
        config.clone(),
        shared.clone(),
        cidr_seen,
        engine_seen.clone(),
        bridge_made,
        shutdown.clone(),
    ));
    let (capacity, data_dir) = (config.capacity.clone(), config.data_dir.clone());
    tasks.spawn(usage::run(shared.clone(), host.clone(), capacity, data_dir, measured, shutdown.clone()));
    let seen = node::Seen { host, engine: engine_seen, certificate: said };
    tasks.spawn(node::run(config.clone(), machine, shared.clone(), seen, node_changed, shutdown.clone()));
    tasks.spawn(keep_saved(shared.clone(), store, shutdown.clone()));
    let stop = shutdown.clone();
    tasks.spawn(async move {
        let mut ready = node_seen;
        // The first Hello carries the Node object.
        let known = tokio::select! {
            () = stop.cancelled() => false,
            ready = ready.wait_for(|node| !node.is_empty()) => ready.is_ok(),
        };
        if known {
            session.run(stop).await;
        }
    });
    let mut failed = None;
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            failed.get_or_insert(Error::Invalid(format!("a part of the kubelet failed: {error}")));
            shutdown.cancel();
        }
    }
    failed.map_or(Ok(()), Err)
}

/// The API addresses that the masters last told the node of this data dir; none when it never ran.
pub fn known_masters_of(data_dir: &Path) -> Vec<String> {
    Store::open(data_dir).map(|store| store.load().masters).unwrap_or_default()
}

/// What the masters last said they are, then what this node was told at first.
fn known_masters(config: &Config, saved: &Saved) -> Vec<String> {
    let mut known = saved.masters.clone();
    known.extend(config.masters.iter().filter(|address| !saved.masters.contains(address)).cloned());
    known
}

fn host_ip(config: &Config, uplink: &dyn Uplink) -> String {
    let found =
        config.node_ip.or_else(|| uplink.addresses().iter().find_map(|address| network::address_towards(address)));
    found.map_or_else(|| "127.0.0.1".to_owned(), |ip| ip.to_string())
}

/// Makes the bridge when the CIDR is known, and again when the engine came back.
async fn keep_network(
    config: Config,
    shared: Arc<Shared>,
    mut cidr: watch::Receiver<String>,
    mut engine: watch::Receiver<String>,
    made: watch::Sender<Result<Bridge, String>>,
    shutdown: CancellationToken,
) {
    loop {
        let wanted = cidr.borrow_and_update().clone();
        let up = engine.borrow_and_update().is_empty();
        let result = if wanted.is_empty() {
            Err("the masters have not allotted a pod network to this node yet".to_owned())
        } else if !up {
            Err("no Docker Engine answers".to_owned())
        } else {
            make_network(&config, &shared, &wanted).await
        };
        let retry = !wanted.is_empty() && up && result.is_err();
        made.send_if_modified(|present| {
            let changed = *present != result;
            if changed && let Err(why) = &result {
                tracing::warn!("pod network: {why}");
            }
            *present = result;
            changed
        });
        let pause = async {
            if retry {
                tokio::time::sleep(NETWORK_RETRY).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = cidr.changed() => if changed.is_err() { return },
            changed = engine.changed() => if changed.is_err() { return },
            () = shared.bridge_missed.notified() => {}
            () = pause => {}
        }
    }
}

async fn make_network(config: &Config, shared: &Shared, cidr: &str) -> Result<Bridge, String> {
    let subnet = cidr.parse().map_err(|error| format!("the pod CIDR {cidr:?} of this node is none: {error}"))?;
    let bridge = network::bridge(&config.cluster_id, &shared.hash, subnet);
    shared.runtime.ensure_bridge(&bridge).await.map_err(|error| error.to_string())?;
    Ok(bridge)
}

/// Writes what changed to disk; changes during a write go into the next one.
async fn keep_saved(shared: Arc<Shared>, store: Store, shutdown: CancellationToken) {
    let store = Arc::new(store);
    loop {
        let last = tokio::select! {
            () = shutdown.cancelled() => true,
            () = shared.unsaved.notified() => false,
        };
        let (saved, store) = (shared.to_save(), store.clone());
        let written = blocking::call(move || store.save(&saved)).await;
        if let Ok(Err(error)) = written {
            tracing::error!(%error, "what this node follows cannot be saved; a reboot would start from older orders");
        }
        if last {
            return;
        }
    }
}

fn refused(error: runtime::Error) -> Error {
    Error::Docker(error.to_string())
}

/// Kills and removes this node's containers at once, as if the machine had died; how many there were.
///
/// # Errors
/// When the engine does not answer or refuses.
pub async fn kill_containers(docker_host: &str, cluster_id: &str, node_uid: &str) -> Result<usize, Error> {
    let docker = Docker::new(docker_host, cluster_id, node_uid);
    let mut containers = docker.list(None).await.map_err(refused)?;
    // Apps before the sandboxes whose network they share.
    containers.sort_by_key(runtime::Container::is_sandbox);
    for part in containers.chunks(crate::shared::DOCKER_OPERATIONS_MAX) {
        let removals = part.iter().map(|container| docker.remove(&container.id));
        for removed in futures::future::join_all(removals).await {
            removed.map_err(refused)?;
        }
    }
    Ok(containers.len())
}

/// Removes everything of this node from the machine: containers, network, volumes, firewall rules (`hactl cluster leave`).
///
/// # Errors
/// When the engine does not answer or refuses, or a volume cannot be unmounted.
pub async fn teardown(docker_host: &str, cluster_id: &str, node_uid: &str, data_dir: &Path) -> Result<(), Error> {
    kill_containers(docker_host, cluster_id, node_uid).await?;
    let docker = Docker::new(docker_host, cluster_id, node_uid);
    docker.remove_networks().await.map_err(refused)?;
    release_volumes(data_dir)
}

/// Unmounts and removes the volumes of all pods of this data dir; what is mounted from elsewhere is left as it is.
///
/// # Errors
/// When one stays mounted: then the data dir must not be removed.
pub fn release_volumes(data_dir: &Path) -> Result<(), Error> {
    for uid in volumes::homes(data_dir) {
        volumes::release(&volumes::Home::of(data_dir, &uid)).map_err(Error::Invalid)?;
    }
    Ok(())
}

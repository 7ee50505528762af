//! The Node object: what this machine has and how it is.
//!
//! Invariant: conditions keep their transition time while their status stays; the object is sent again only when something but a
//! heartbeat time changed, or after `REFRESH`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use rpc::pki::Said;

use crate::host::{Figures, Host, Identity};
use crate::runtime::{Bridge, Info};
use crate::shared::Shared;
use crate::{Capacity, Config};

const LOOK: Duration = Duration::from_secs(10);
const REFRESH: Duration = Duration::from_secs(300);
const PODS: u32 = 110;
/// Below these the node is under pressure.
const MEMORY_FREE_BYTES_MIN: u64 = 100 << 20;
const DISK_FREE_PERCENT_MIN: u64 = 5;
const PROCESSES_FREE_PERCENT_MIN: u64 = 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    pub identity: Identity,
    pub cpu_millis: u64,
    pub memory_bytes: u64,
    pub disk_bytes: u64,
    pub pods: u32,
}

impl Machine {
    pub fn of(identity: Identity, figures: &Figures, limits: &Capacity) -> Machine {
        Machine {
            identity,
            cpu_millis: limits.cpu_millis.unwrap_or(figures.cores * 1000),
            memory_bytes: limits.memory_bytes.unwrap_or(figures.memory_bytes),
            disk_bytes: figures.disk_bytes,
            pods: limits.pods.unwrap_or(PODS),
        }
    }
}

/// How the machine is doing right now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// Empty: the engine answers.
    pub engine: String,
    /// Empty: pods get addresses.
    pub network: String,
    pub memory_short: bool,
    pub disk_short: bool,
    pub processes_short: bool,
}

fn health(figures: &Figures, engine: &str, network: &Result<Bridge, String>) -> Health {
    let processes_free = figures.processes_max.saturating_sub(figures.processes);
    Health {
        engine: engine.to_owned(),
        network: network.as_ref().err().cloned().unwrap_or_default(),
        memory_short: figures.memory_free_bytes.is_some_and(|free| free < MEMORY_FREE_BYTES_MIN),
        disk_short: figures.disk_free_bytes * 100 < figures.disk_bytes * DISK_FREE_PERCENT_MIN,
        processes_short: processes_free * 100 < figures.processes_max * PROCESSES_FREE_PERCENT_MIN,
    }
}

/// As JSON in an annotation of the Node: `rpc::pki::Said`.
const CERTIFICATE: &str = "hactl.io/certificate";

/// What the Node object follows.
pub struct Seen {
    pub host: Arc<dyn Host>,
    pub engine: watch::Receiver<String>,
    pub certificate: watch::Receiver<Said>,
}

/// Builds the object. `since` keeps when each condition last changed.
pub fn object(
    config: &Config,
    machine: &Machine,
    info: &Info,
    host_ip: &str,
    health: &Health,
    certificate: &Said,
    since: &mut BTreeMap<String, (String, String)>,
) -> Value {
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default().to_string();
    let mut condition = |kind: &str, status: bool, reason: &str, message: &str| {
        let status = if status { "True" } else { "False" };
        let entry = since.entry(kind.to_owned()).or_insert_with(|| (status.to_owned(), now.clone()));
        if entry.0 != status {
            *entry = (status.to_owned(), now.clone());
        }
        json!({ "type": kind, "status": status, "reason": reason, "message": message,
                "lastHeartbeatTime": now, "lastTransitionTime": entry.1 })
    };
    let pressure = |short: bool, yes: &'static str, no: &'static str| if short { yes } else { no };
    let ready = if !health.engine.is_empty() {
        condition("Ready", false, "ContainerRuntimeNotReady", &health.engine)
    } else if !health.network.is_empty() {
        condition("Ready", false, "NetworkNotReady", &health.network)
    } else {
        condition("Ready", true, "KubeletReady", "kubelet is posting ready status")
    };
    let conditions = json!([
        condition(
            "MemoryPressure",
            health.memory_short,
            pressure(health.memory_short, "KubeletHasInsufficientMemory", "KubeletHasSufficientMemory"),
            pressure(
                health.memory_short,
                "kubelet has insufficient memory available",
                "kubelet has sufficient memory available"
            ),
        ),
        condition(
            "DiskPressure",
            health.disk_short,
            pressure(health.disk_short, "KubeletHasDiskPressure", "KubeletHasNoDiskPressure"),
            pressure(health.disk_short, "kubelet has disk pressure", "kubelet has no disk pressure"),
        ),
        condition(
            "PIDPressure",
            health.processes_short,
            pressure(health.processes_short, "KubeletHasInsufficientPID", "KubeletHasSufficientPID"),
            pressure(
                health.processes_short,
                "kubelet has insufficient PID available",
                "kubelet has sufficient PID available"
            ),
        ),
        ready,
    ]);
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let mut labels: BTreeMap<String, String> = config.labels.clone();
    for prefix in ["kubernetes.io", "beta.kubernetes.io"] {
        labels.insert(format!("{prefix}/os"), "linux".to_owned());
        labels.insert(format!("{prefix}/arch"), architecture.to_owned());
    }
    labels.insert("kubernetes.io/hostname".to_owned(), config.node_name.clone());
    let cpu = match machine.cpu_millis {
        millis if millis.is_multiple_of(1000) => (millis / 1000).to_string(),
        millis => format!("{millis}m"),
    };
    let resources = json!({
        "cpu": cpu,
        "memory": format!("{}Ki", machine.memory_bytes / 1024),
        "ephemeral-storage": format!("{}Ki", machine.disk_bytes / 1024),
        "pods": machine.pods.to_string(),
    });
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": config.node_name, "uid": config.node_uid, "labels": labels,
            "annotations": { CERTIFICATE: json!(certificate).to_string() } },
        "status": {
            "addresses": [
                { "type": "InternalIP", "address": host_ip },
                { "type": "Hostname", "address": config.node_name },
            ],
            "capacity": resources,
            "allocatable": resources,
            "conditions": conditions,
            "daemonEndpoints": { "kubeletEndpoint": { "Port": 0 } },
            "nodeInfo": {
                "architecture": architecture,
                "operatingSystem": "linux",
                "bootID": machine.identity.boot_id,
                "machineID": machine.identity.machine_id,
                "systemUUID": machine.identity.system_uuid,
                "kernelVersion": if info.kernel.is_empty() { &machine.identity.kernel } else { &info.kernel },
                "osImage": if info.os_image.is_empty() { "Linux".to_owned() } else { info.os_image.clone() },
                "containerRuntimeVersion": format!("docker://{}", info.version),
                "kubeletVersion": concat!("v1.36.0+hactl.", env!("CARGO_PKG_VERSION")),
                "kubeProxyVersion": "",
            },
        },
    })
}

/// Keeps the Node object current: `changed` gets it, and the masters when it matters.
pub async fn run(
    config: Config,
    machine: Machine,
    shared: Arc<Shared>,
    seen: Seen,
    changed: watch::Sender<Bytes>,
    shutdown: CancellationToken,
) {
    let Seen { host, mut engine, mut certificate } = seen;
    let mut bridge = shared.bridge.clone();
    let mut since = BTreeMap::new();
    let mut info = Info::default();
    let mut sent: Option<(Health, Info, String, Said, tokio::time::Instant)> = None;
    // A node that comes back is not announced as broken while its network is looked at.
    tokio::select! {
        () = shutdown.cancelled() => return,
        _ = shared.settled_bridge() => {}
    }
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = look.tick() => {}
            Ok(()) = engine.changed() => {}
            Ok(()) = bridge.changed() => {}
            Ok(()) = certificate.changed() => {}
        }
        let down = engine.borrow_and_update().clone();
        let network = bridge.borrow_and_update().clone();
        if down.is_empty()
            && (info.version.is_empty() || sent.as_ref().is_some_and(|(old, ..)| !old.engine.is_empty()))
            && let Ok(found) = shared.runtime.info().await
        {
            info = found;
        }
        let health = health(&host.figures(&config.data_dir), &down, &network);
        let host_ip = shared.host_ip();
        let said = certificate.borrow_and_update().clone();
        let same = sent.as_ref().is_some_and(|(old, known, ip, held, at)| {
            *old == health && *known == info && *ip == host_ip && *held == said && at.elapsed() < REFRESH
        });
        if same {
            continue;
        }
        let node = object(&config, &machine, &info, &host_ip, &health, &said, &mut since);
        let bytes = Bytes::from(node.to_string());
        changed.send_replace(bytes.clone());
        shared.outbox.node(bytes);
        sent = Some((health, info.clone(), host_ip, said, tokio::time::Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_say_what_is_wrong() {
        let config = Config {
            data_dir: "/".into(),
            cluster_id: "c".into(),
            epoch: 1,
            node_name: "n1".into(),
            node_uid: "u".into(),
            docker_host: String::new(),
            masters: Vec::new(),
            node_ip: None,
            capacity: Capacity::default(),
            labels: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
        };
        let identity = Identity::default();
        let machine = Machine { identity, cpu_millis: 1500, memory_bytes: 1 << 30, disk_bytes: 1 << 40, pods: 7 };
        let mut since = BTreeMap::new();
        let ready = |health: &Health, since: &mut _| {
            let node = object(&config, &machine, &Info::default(), "192.0.2.1", health, &Said::default(), since);
            let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let ready = conditions.into_iter().find(|c| c["type"] == "Ready").unwrap_or_default();
            (node, ready)
        };
        let (node, fine) = ready(&Health::default(), &mut since);
        assert_eq!(fine["status"], "True");
        assert_eq!(node["status"]["allocatable"]["cpu"], "1500m");
        assert_eq!(node["metadata"]["labels"]["kubernetes.io/hostname"], "n1");
        assert_eq!(node["metadata"]["labels"]["zone"], "a");
        let down = Health { engine: "no Docker Engine answers".to_owned(), ..Health::default() };
        let (_, broken) = ready(&down, &mut since);
        assert_eq!((&broken["status"], &broken["reason"]), (&json!("False"), &json!("ContainerRuntimeNotReady")));
    }
}

//! What all workers of a node share: the engine, the assigned objects, addresses, the way up.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use k8s_openapi::api::core::v1 as core;
use tokio::sync::{Notify, Semaphore, watch};

use crate::env::Source;
use crate::network::Addresses;
use crate::outbox::Outbox;
use crate::recorder::Recorder;
use crate::runtime::{Bridge, Runtime};
use crate::saved::{Object, PodRecord, Saved};

/// Docker takes no advantage of more changes at once.
pub const DOCKER_OPERATIONS_MAX: usize = 8;
pub const PULLS_MAX: usize = 4;
/// Logs, commands and connections that masters have open on this node.
pub const STREAMS_MAX: usize = 256;
/// Stands for the bridge until it was tried to make it.
pub const BRIDGE_STARTING: &str = "the pod network is being set up";
/// Nothing waits longer for that.
const BRIDGE_WAIT: std::time::Duration = std::time::Duration::from_secs(5);

pub struct Shared {
    pub runtime: Arc<dyn Runtime>,
    pub data_dir: PathBuf,
    pub hash: String,
    pub host_ip: String,
    pub cpu_millis: i64,
    pub memory_bytes: i64,
    pub outbox: Arc<Outbox>,
    pub recorder: Recorder,
    pub operations: Semaphore,
    pub pulls: Semaphore,
    pub streams: Semaphore,
    /// The bridge once it stands, or why it does not.
    pub bridge: watch::Receiver<Result<Bridge, String>>,
    /// The engine has lost the bridge: somebody removed it.
    pub bridge_missed: Notify,
    state: Mutex<State>,
    /// Something that is kept on disk has changed.
    pub unsaved: Notify,
}

#[derive(Default)]
struct State {
    saved: Saved,
    objects: BTreeMap<(String, String, String), Object>,
    addresses: Addresses,
}

/// Everything but the state, for building.
pub struct Parts {
    pub runtime: Arc<dyn Runtime>,
    pub data_dir: PathBuf,
    pub hash: String,
    pub node_name: String,
    pub host_ip: String,
    pub cpu_millis: i64,
    pub memory_bytes: i64,
    pub bridge: watch::Receiver<Result<Bridge, String>>,
    pub saved: Saved,
}

impl Shared {
    pub fn new(parts: Parts) -> Shared {
        let outbox = Arc::new(Outbox::default());
        let mut saved = parts.saved;
        let objects = saved.objects.drain(..).map(|object| (key(&object), object)).collect();
        let mut addresses = Addresses::default();
        for (uid, record) in &saved.pods {
            if let Some(address) = record.address {
                addresses.hold(address, uid);
            }
        }
        Shared {
            runtime: parts.runtime,
            data_dir: parts.data_dir,
            hash: parts.hash,
            host_ip: parts.host_ip,
            cpu_millis: parts.cpu_millis,
            memory_bytes: parts.memory_bytes,
            recorder: Recorder::new(&parts.node_name, outbox.clone()),
            outbox,
            operations: Semaphore::new(DOCKER_OPERATIONS_MAX),
            pulls: Semaphore::new(PULLS_MAX),
            streams: Semaphore::new(STREAMS_MAX),
            bridge: parts.bridge,
            bridge_missed: Notify::new(),
            state: Mutex::new(State { saved, objects, addresses }),
            unsaved: Notify::new(),
        }
    }

    /// The bridge, or why there is none, once that is known.
    pub async fn settled_bridge(&self) -> Result<Bridge, String> {
        let mut bridge = self.bridge.clone();
        let settled = bridge.wait_for(|bridge| bridge.as_ref().err().is_none_or(|why| why != BRIDGE_STARTING));
        match tokio::time::timeout(BRIDGE_WAIT, settled).await {
            Ok(Ok(bridge)) => bridge.clone(),
            _ => Err(BRIDGE_STARTING.to_owned()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub fn host_ip(&self) -> String {
        self.host_ip.clone()
    }

    /// Everything to be written to disk.
    pub fn to_save(&self) -> Saved {
        let state = self.state();
        Saved { objects: state.objects.values().cloned().collect(), ..state.saved.clone() }
    }

    /// Changes what is kept on disk.
    pub fn change<T>(
        &self,
        change: impl FnOnce(&mut Saved, &mut BTreeMap<(String, String, String), Object>) -> T,
    ) -> T {
        let result = {
            let mut state = self.state();
            let State { saved, objects, .. } = &mut *state;
            change(saved, objects)
        };
        self.unsaved.notify_one();
        result
    }

    /// What proves the epoch that is followed.
    pub fn epoch_proof(&self) -> String {
        self.state().saved.epoch_proof.clone()
    }

    /// A master that may be followed has shown this.
    pub fn keep_proof(&self, proof: String) {
        if !proof.is_empty() && proof != self.epoch_proof() {
            self.change(|saved, _| saved.epoch_proof = proof);
        }
    }

    pub fn position(&self) -> (u64, u64) {
        let state = self.state();
        (state.saved.epoch, state.saved.revision)
    }

    pub fn objects_of(&self, resource: &str) -> Vec<Object> {
        let state = self.state();
        state.objects.values().filter(|object| object.resource == resource).cloned().collect()
    }

    fn object<T: serde::de::DeserializeOwned>(&self, resource: &str, namespace: &str, name: &str) -> Option<T> {
        let key = (resource.to_owned(), namespace.to_owned(), name.to_owned());
        let json = self.state().objects.get(&key)?.json.clone();
        serde_json::from_str(json.get()).ok()
    }

    pub fn record(&self, uid: &str) -> PodRecord {
        self.state().saved.pods.get(uid).cloned().unwrap_or_default()
    }

    pub fn set_record(&self, uid: &str, record: PodRecord) {
        let changed = {
            let mut state = self.state();
            let old = state.saved.pods.insert(uid.to_owned(), record.clone());
            old.as_ref() != Some(&record)
        };
        if changed {
            self.unsaved.notify_one();
        }
    }

    pub fn hold_address(&self, uid: &str, address: Ipv4Addr) -> bool {
        self.state().addresses.hold(address, uid)
    }

    pub fn take_address(&self, uid: &str, subnet: ipnet::Ipv4Net) -> Option<Ipv4Addr> {
        self.state().addresses.take(subnet, uid)
    }

    /// Never gives this address out again: something that is not ours uses it.
    pub fn avoid_address(&self, address: Ipv4Addr) {
        self.state().addresses.avoid(address);
    }

    pub fn release(&self, uid: &str) {
        {
            let mut state = self.state();
            state.addresses.release(uid);
            state.saved.pods.remove(uid);
        }
        self.unsaved.notify_one();
    }

    pub fn source<'a>(&'a self, namespace: &'a str) -> InNamespace<'a> {
        InNamespace { shared: self, namespace }
    }
}

pub fn key(object: &Object) -> (String, String, String) {
    (object.resource.clone(), object.namespace.clone(), object.name.clone())
}

/// The assigned objects that a pod of this namespace may use.
pub struct InNamespace<'a> {
    shared: &'a Shared,
    namespace: &'a str,
}

impl Source for InNamespace<'_> {
    fn config_map(&self, name: &str) -> Option<core::ConfigMap> {
        self.shared.object("configmaps", self.namespace, name)
    }
    fn secret(&self, name: &str) -> Option<core::Secret> {
        self.shared.object("secrets", self.namespace, name)
    }
    fn services(&self) -> Vec<core::Service> {
        let all = self.shared.objects_of("services");
        let usable = all
            .into_iter()
            .filter(|o| o.namespace == self.namespace || (o.namespace == "default" && o.name == "kubernetes"));
        usable.filter_map(|object| serde_json::from_str(object.json.get()).ok()).collect()
    }
}

//! The two things that a worker creates: sandboxes and containers.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;

use super::Worker;
use crate::podspec::{self, Place};
use crate::runtime::Error;
use crate::{images, volumes};

/// What Docker's address management says; it has no code of its own for it.
const ADDRESS_IN_USE: &str = "Address already in use";

/// Reason and message as status and events show them.
pub type Refusal = (&'static str, String);

impl Worker {
    pub(super) async fn make_sandbox(&mut self, pod: &Arc<core::Pod>, attempt: u32) -> Result<(), Refusal> {
        let failed = |message: String| ("FailedCreatePodSandBox", message);
        self.files(pod, volumes::prepare).await.map_err(|message| ("FailedMount", message))?;
        let (bridge_name, address) = if podspec::host_network(pod) {
            (String::new(), None)
        } else {
            let bridge = self
                .shared
                .settled_bridge()
                .await
                .map_err(|why| ("NetworkNotReady", format!("network is not ready: {why}")))?;
            if let Some(had) = self.record.address.filter(|had| bridge.subnet.contains(had)) {
                self.shared.hold_address(&self.uid, had);
            }
            let address = self
                .shared
                .take_address(&self.uid, bridge.subnet)
                .ok_or_else(|| failed(format!("no address is free in the node's pod network {}", bridge.subnet)))?;
            (bridge.name, Some(address))
        };
        if self.record.address != address {
            self.record.address = address;
            self.shared.set_record(&self.uid, self.record.clone());
        }
        let spec = podspec::sandbox(&self.shared.hash, pod, &bridge_name, address, attempt);
        let shared = self.shared.clone();
        let runtime = &shared.runtime;
        let _slot = shared.operations.acquire().await;
        images::load(runtime.as_ref(), &spec.image).await.map_err(|e| failed(e.to_string()))?;
        let made = runtime.create(&spec).await;
        let id = made.map_err(|error| {
            self.bridge_lost(&error);
            failed(format!("failed to create a sandbox for pod: {error}"))
        })?;
        if let Err(error) = runtime.start(&id).await {
            // It would only stand in the way of the next attempt, which the plan makes anyway.
            let _ = runtime.remove(&id).await;
            self.bridge_lost(&error);
            if let Some(address) = address.filter(|_| error.to_string().contains(ADDRESS_IN_USE)) {
                self.address_in_use(&bridge_name, address).await;
            }
            return Err(failed(format!("failed to start sandbox for pod: {error}")));
        }
        Ok(())
    }

    /// Has the bridge made again when the engine knows it no more.
    fn bridge_lost(&self, error: &Error) {
        if matches!(error, Error::NotFound(message) if message.contains("network")) {
            self.shared.bridge_missed.notify_one();
        }
    }

    /// An engine that crashed may count an address as used by a container that is gone, and anybody may put a container of theirs
    /// on the bridge: in both cases the next attempt must not fail as this one did.
    async fn address_in_use(&mut self, bridge: &str, address: std::net::Ipv4Addr) {
        match self.shared.runtime.free_address(bridge, address).await {
            Ok(true) => tracing::info!(%address, "a stale endpoint held the address; freed"),
            Ok(false) => {
                tracing::warn!(%address, "the address is used by something else; this node gives it out no more");
                self.shared.avoid_address(address);
                self.record.address = None;
                self.shared.set_record(&self.uid, self.record.clone());
            }
            Err(error) => tracing::warn!(%address, %error, "cannot find out who uses the address"),
        }
    }

    pub(super) async fn make_container(
        &mut self,
        pod: &Arc<core::Pod>,
        wanted: &core::Container,
        sandbox_id: &str,
        attempt: u32,
        step: u32,
    ) -> Result<(), Refusal> {
        let config = |message: String| ("CreateContainerConfigError", message);
        let image_name = wanted.image.as_deref().unwrap_or_default();
        let image = self.shared.runtime.image(image_name).await.map_err(|e| ("ImageInspectError", e.to_string()))?;
        let image = image.ok_or_else(|| ("ErrImagePull", format!("image {image_name} is gone again")))?;
        if let Some(digest) = &image.digest {
            self.digests.insert(image.id.clone(), digest.clone());
        }
        let facts = self.facts();
        let (shared, pod_in, wanted_in, facts_in) = (self.shared.clone(), pod.clone(), wanted.clone(), facts.clone());
        let address = self.record.address;
        let mounts = crate::blocking::call(move || {
            let source = shared.source(podspec::namespace(&pod_in));
            let variables: BTreeMap<String, String> =
                crate::env::variables(&pod_in, &wanted_in, &facts_in, &source)?.into_iter().collect();
            let hosts = address.map(|address| podspec::hosts_file(&pod_in, address));
            let home = volumes::home(&shared.data_dir, &pod_in);
            volumes::mounts(&pod_in, &wanted_in, &home, attempt, hosts.as_deref(), &|text| {
                crate::env::expand(text, &variables)
            })
        });
        let mounts = mounts.await.map_err(|e| config(e.to_string()))?.map_err(config)?;
        let place = Place {
            hash: &self.shared.hash,
            sandbox_id,
            attempt,
            step,
            facts: &facts,
            mounts,
            image_user: &image.user,
        };
        let source = self.shared.source(podspec::namespace(pod));
        let spec = podspec::container(pod, wanted, place, &source).map_err(config)?;
        let runtime = &self.shared.runtime;
        let _slot = self.shared.operations.acquire().await;
        let id = match runtime.create(&spec).await {
            Ok(id) => id,
            // Made by an earlier call whose answer was lost: the next look finds it.
            Err(Error::Conflict(message)) if message.contains("already in use") => return Ok(()),
            Err(error) => return Err(("CreateContainerError", error.to_string())),
        };
        self.shared.recorder.pod(
            pod,
            Some(&wanted.name),
            "Normal",
            "Created",
            &format!("Created container: {}", wanted.name),
        );
        match runtime.start(&id).await {
            Ok(()) => {
                self.shared.recorder.pod(
                    pod,
                    Some(&wanted.name),
                    "Normal",
                    "Started",
                    &format!("Started container {}", wanted.name),
                );
                Ok(())
            }
            // The engine is away: the container that was made is found, and started anew, when it is back.
            Err(error @ Error::Down(_)) => Err(("RunContainerError", error.to_string())),
            // It stays as an ended container with its error, so that the restart back-off counts it.
            Err(error) => {
                let text = format!("Error: failed to start container {:?}: {error}", wanted.name);
                self.shared.recorder.pod(pod, Some(&wanted.name), "Warning", "Failed", &text);
                Ok(())
            }
        }
    }
}

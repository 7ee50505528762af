//! What a worker learns of its containers and says of its pod: probes and status.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use rpc::pb;

use super::{Worker, find};
use crate::plan::{self, Order};
use crate::probe::{self, Kind, Report, Target};
use crate::runtime::{Container, State, label};
use crate::status::{self, Seen};
use crate::{podspec, volumes};

/// A status that the masters keep differently is sent again at most this often.
const RESEND_SECONDS: i64 = 10;

impl Worker {
    /// Starts the probes of containers that run, ends those of others.
    pub(super) fn watch_probes(&mut self, pod: &core::Pod, containers: &[Container], order: Order, now: Timestamp) {
        let running = |id: &str| containers.iter().any(|c| c.id == id && c.state == State::Running);
        let alive = order == Order::Run;
        self.probes.retain(|(id, kind), _| running(id) && (alive || *kind == Kind::Readiness));
        let Some(spec) = pod.spec.as_ref() else { return };
        let newest = plan::latest(containers);
        for wanted in &spec.containers {
            let Some(container) = newest.get(wanted.name.as_str()).filter(|c| c.state == State::Running) else {
                continue;
            };
            let id = &container.id;
            if wanted.startup_probe.is_none() {
                self.verdicts.started.insert(id.clone());
            }
            let started = self.verdicts.started.contains(id);
            if started && wanted.readiness_probe.is_none() {
                self.verdicts.ready.insert(id.clone());
            }
            let kinds = [
                (Kind::Startup, &wanted.startup_probe, !started),
                (Kind::Readiness, &wanted.readiness_probe, started),
                (Kind::Liveness, &wanted.liveness_probe, started),
            ];
            for (kind, probe, due) in kinds {
                let key = (id.clone(), kind);
                let Some(probe) = probe.as_ref().filter(|_| due && alive) else { continue };
                if self.probes.contains_key(&key) || self.memory.unhealthy.contains_key(id) {
                    continue;
                }
                let since = container
                    .started
                    .and_then(|at| Duration::try_from(now.duration_since(at)).ok())
                    .unwrap_or_default();
                let ip =
                    if podspec::host_network(pod) { self.shared.host_ip() } else { self.pod_ip().unwrap_or_default() };
                let target = Target { spec: wanted, id, pod_ip: &ip, since_start: since };
                let started = probe::start(self.shared.runtime.clone(), kind, probe, &target, self.reports.0.clone());
                self.probes.insert(key, started);
            }
        }
    }

    pub(super) fn report(&mut self, report: Report) {
        let Some(pod) = self.wanted.borrow().pod.clone() else { return };
        if let Some(failure) = &report.failure {
            let text = format!("{} probe failed: {}", report.kind.name(), failure.trim_end());
            self.shared.recorder.pod(&pod, Some(&report.container), "Warning", "Unhealthy", &text);
        }
        let id = report.container_id;
        match (report.kind, report.verdict) {
            (Kind::Readiness, Some(true)) => {
                self.verdicts.ready.insert(id);
            }
            (Kind::Readiness, Some(false)) => {
                self.verdicts.ready.remove(&id);
            }
            (Kind::Startup, Some(true)) => {
                self.verdicts.started.insert(id);
            }
            (Kind::Startup | Kind::Liveness, Some(false)) => {
                let of_pod = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
                let probe = find(&pod, &report.container).and_then(|container| match report.kind {
                    Kind::Startup => container.startup_probe.as_ref(),
                    _ => container.liveness_probe.as_ref(),
                });
                let grace = probe.and_then(|probe| probe.termination_grace_period_seconds).unwrap_or(of_pod);
                self.probes.retain(|(probed, _), _| *probed != id);
                self.verdicts.ready.remove(&id);
                self.memory.unhealthy.insert(id, grace);
            }
            _ => {}
        }
    }

    pub(super) async fn publish(
        &mut self,
        pod: &Arc<core::Pod>,
        order: Order,
        containers: &[Container],
        now: Timestamp,
    ) {
        for container in containers.iter().filter(|c| c.state == State::Exited && !c.is_sandbox()) {
            if !self.messages.contains_key(&container.id) {
                let home = volumes::home(&self.shared.data_dir, pod);
                let text = volumes::message(&home, container.label(label::CONTAINER), container.attempt());
                self.messages.insert(container.id.clone(), text);
                self.learn_back_off(pod, container);
            }
        }
        for container in containers.iter().filter(|c| !c.is_sandbox()) {
            if !self.digests.contains_key(&container.image_id)
                && let Ok(Some(image)) = self.shared.runtime.image(&container.image_id).await
            {
                // An image without a digest is entered too, so that it is asked for once.
                let known = image.digest.unwrap_or_else(|| image.id.clone());
                self.digests.insert(container.image_id.clone(), known);
            }
        }
        let digests: BTreeMap<String, String> = self
            .digests
            .iter()
            .filter(|(_, digest)| digest.contains('@'))
            .map(|(id, digest)| (id.clone(), digest.clone()))
            .collect();
        let pod_ip = if podspec::host_network(pod) { Some(self.shared.host_ip()) } else { self.pod_ip() };
        let previous = self.record.status.clone().or_else(|| pod.status.clone());
        let status = status::status(&Seen {
            pod,
            order,
            containers,
            memory: &self.memory,
            verdicts: &self.verdicts,
            messages: &self.messages,
            digests: &digests,
            previous: previous.as_ref(),
            pod_ip,
            host_ip: self.shared.host_ip(),
            now,
        });
        self.record.status = Some(status.clone());
        self.shared.set_record(&self.uid, self.record.clone());
        let due = match &self.sent {
            Some((sent, _)) if *sent != status => true,
            // The masters keep something else: an older state restored, or a lost write.
            Some((_, at)) => {
                pod.status.as_ref() != Some(&status) && now.duration_since(*at).as_secs() >= RESEND_SECONDS
            }
            None => pod.status.as_ref() != Some(&status),
        };
        if !due {
            return;
        }
        let Ok(json) = serde_json::to_vec(&status) else { return };
        self.sent = Some((status, now));
        self.shared.outbox.status(pb::PodStatus {
            namespace: podspec::namespace(pod).to_owned(),
            name: podspec::name(pod).to_owned(),
            uid: self.uid.clone(),
            status_json: json.into(),
        });
    }

    /// Says once per ended container that it will wait before its restart.
    fn learn_back_off(&self, pod: &core::Pod, ended: &Container) {
        let (_, wait, _) = plan::back_off(ended);
        if wait > 0 && plan::restarts(plan::restart_policy(pod), ended) {
            let (name, pod_name, namespace) =
                (ended.label(label::CONTAINER), podspec::name(pod), podspec::namespace(pod));
            let text =
                format!("Back-off restarting failed container {name} in pod {pod_name}_{namespace}({})", self.uid);
            self.shared.recorder.pod(pod, Some(name), "Warning", "BackOff", &text);
        }
    }
}

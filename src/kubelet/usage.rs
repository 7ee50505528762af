//! What the node, its pods and their containers use, measured every few seconds for the masters.
//!
//! Processor time is only counted by the kernel, so a rate needs two looks. Not here: where the counts come from
//! (`runtime`, `host`), and who keeps them (the masters, the newest only). Invariant: a pod is told with all its running
//! containers or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rpc::pb;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Capacity;
use crate::host::{Figures, Host};
use crate::runtime::{self, Container, State, Usage, label};
use crate::shared::Shared;
use crate::sync::in_time;

const EVERY: Duration = Duration::from_secs(15);
/// So that a node which has just come up is not without figures for long.
const FIRST_LOOKS: Duration = Duration::from_secs(2);
/// Looks that are that near to each other.
const FIRST: u32 = 2;

/// One look: the counts, and whose they are.
#[derive(Debug, Clone)]
pub struct Look {
    at: Instant,
    figures: Figures,
    containers: Vec<Container>,
    used: BTreeMap<String, Usage>,
}

/// Measures until shutdown; `told` gets each new figure.
pub async fn run(
    shared: Arc<Shared>,
    host: Arc<dyn Host>,
    capacity: Capacity,
    data_dir: PathBuf,
    told: watch::Sender<Option<Arc<pb::NodeUsage>>>,
    shutdown: CancellationToken,
) {
    // Of a machine that is divided, the others' part is none of this node's.
    let divided = capacity.cpu_millis.is_some() || capacity.memory_bytes.is_some();
    let mut last: Option<Look> = None;
    let mut looks = 0;
    loop {
        let pause = if looks < FIRST { FIRST_LOOKS } else { EVERY };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        looks += 1;
        let figures = host.figures(&data_dir);
        match look(&shared, figures).await {
            Ok(look) => {
                if let Some(last) = &last {
                    told.send_replace(Some(Arc::new(between(last, &look, divided))));
                }
                last = Some(look);
            }
            // That the engine is away is said elsewhere; what is known gets old.
            Err(error) => tracing::debug!(%error, "what the pods use is not measured now"),
        }
    }
}

async fn look(shared: &Shared, figures: Figures) -> runtime::Result<Look> {
    let mut containers = in_time(shared.runtime.list(None)).await?;
    containers.retain(|container| container.state == State::Running);
    let ids: Vec<String> = containers.iter().map(|container| container.id.clone()).collect();
    let used = in_time(shared.runtime.usage(&ids)).await?;
    Ok(Look { at: Instant::now(), figures, containers, used })
}

/// What was used between two looks.
fn between(last: &Look, now: &Look, divided: bool) -> pb::NodeUsage {
    let window = now.at.saturating_duration_since(last.at);
    let rate = |before: Duration, after: Duration| {
        let spent = after.saturating_sub(before).as_nanos() * Duration::from_secs(1).as_nanos();
        u64::try_from(spent / window.as_nanos().max(1)).unwrap_or(u64::MAX)
    };
    let used = |container: &Container| {
        let (before, after) = (last.used.get(&container.id)?, now.used.get(&container.id)?);
        Some(pb::Used { cpu_nanos: rate(before.cpu, after.cpu), memory_bytes: after.memory_bytes })
    };
    let mut pods: BTreeMap<&str, pb::PodUsage> = BTreeMap::new();
    let mut unknown = BTreeSet::new();
    let mut all = pb::Used::default();
    for container in &now.containers {
        let uid = container.label(label::POD_UID);
        let found = used(container);
        if let Some(found) = &found {
            all.cpu_nanos = all.cpu_nanos.saturating_add(found.cpu_nanos);
            all.memory_bytes = all.memory_bytes.saturating_add(found.memory_bytes);
        }
        if container.is_sandbox() {
            continue;
        }
        if found.is_none() {
            unknown.insert(uid);
        }
        let pod = pods.entry(uid).or_insert_with(|| pb::PodUsage {
            namespace: container.label(label::POD_NAMESPACE).to_owned(),
            name: container.label(label::POD_NAME).to_owned(),
            uid: uid.to_owned(),
            containers: Vec::new(),
        });
        pod.containers.push(pb::ContainerUsage { name: container.label(label::CONTAINER).to_owned(), used: found });
    }
    let node = if divided {
        all
    } else {
        let free = now.figures.memory_free_bytes.unwrap_or(now.figures.memory_bytes);
        pb::Used {
            cpu_nanos: rate(last.figures.cpu_busy, now.figures.cpu_busy),
            memory_bytes: now.figures.memory_bytes.saturating_sub(free),
        }
    };
    pods.retain(|uid, _| !unknown.contains(uid));
    pods.values_mut().for_each(|pod| pod.containers.sort_by(|a, b| a.name.cmp(&b.name)));
    pb::NodeUsage {
        window_ms: u32::try_from(window.as_millis()).unwrap_or(u32::MAX),
        node: Some(node),
        pods: pods.into_values().collect(),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn container(pod: &str, name: &str) -> Container {
        let labels = [(label::POD_UID, pod), (label::POD_NAME, pod), (label::POD_NAMESPACE, "default")];
        let labels = labels.into_iter().chain([(label::CONTAINER, name)]);
        Container {
            id: format!("{pod}/{name}"),
            name: String::new(),
            labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            state: State::Running,
            exit_code: 0,
            oom_killed: false,
            error: String::new(),
            created: Timestamp::UNIX_EPOCH,
            started: None,
            finished: None,
            image: String::new(),
            image_id: String::new(),
            stop_signal: String::new(),
        }
    }

    fn look(at: Instant, busy: u64, used: &[(&str, u64, u64)]) -> Look {
        let containers = used.iter().map(|(id, ..)| id.split_once('/').expect("pod/name"));
        Look {
            at,
            figures: Figures {
                memory_bytes: 1000,
                memory_free_bytes: Some(400),
                cpu_busy: Duration::from_secs(busy),
                ..Figures::default()
            },
            containers: containers.map(|(pod, name)| container(pod, name)).collect(),
            used: used
                .iter()
                .map(|(id, ms, bytes)| {
                    ((*id).to_owned(), Usage { cpu: Duration::from_millis(*ms), memory_bytes: *bytes })
                })
                .collect(),
        }
    }

    #[test]
    fn a_rate_is_the_difference_of_two_looks() {
        let begun = Instant::now();
        let first = look(begun, 100, &[("a/-sandbox-", 10, 1), ("a/x", 1000, 5), ("b/x", 7000, 9), ("c/x", 0, 1)]);
        let then = begun + Duration::from_secs(10);
        // A container that began again is counted anew; one that is new has no rate yet, and so its pod none.
        let second =
            look(then, 115, &[("a/-sandbox-", 20, 1), ("a/x", 6000, 6), ("b/x", 100, 9), ("c/x", 1, 2), ("c/y", 0, 0)]);
        let usage = between(&first, &second, false);
        assert_eq!(usage.window_ms, 10_000);
        assert_eq!(usage.node, Some(pb::Used { cpu_nanos: 1_500_000_000, memory_bytes: 600 }));
        let told: Vec<_> = usage
            .pods
            .iter()
            .map(|pod| (pod.name.as_str(), pod.containers.len(), pod.containers[0].used.unwrap_or_default()))
            .collect();
        let a = pb::Used { cpu_nanos: 500_000_000, memory_bytes: 6 };
        let b = pb::Used { cpu_nanos: 0, memory_bytes: 9 };
        assert_eq!(told, [("a", 1, a), ("b", 1, b)]);
        let divided = between(&first, &second, true);
        assert_eq!(divided.node, Some(pb::Used { cpu_nanos: 501_100_000, memory_bytes: 18 }));
    }
}

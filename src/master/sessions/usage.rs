//! What the nodes of this master use, as they told last.
//!
//! **Invariant:** in memory only, one message for each node, none older than [`AGE_MAX`]: a node that tells nothing is
//! absent, whether it runs or not.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prost::Message;
use rpc::pb;
use tokio::time::Instant;

use super::Sessions;

/// A node tells every 15 s.
const AGE_MAX: Duration = Duration::from_secs(60);
/// Of one node's message; some thousand containers.
const BYTES_MAX: usize = 1 << 20;

#[derive(Default)]
pub(super) struct Held(Mutex<BTreeMap<String, Told>>);

struct Told {
    uid: String,
    at: Instant,
    usage: pb::NodeUsage,
}

impl Held {
    /// In the place of what the node told before.
    pub fn keep(&self, node: &str, uid: &str, usage: pb::NodeUsage) {
        if usage.encoded_len() > BYTES_MAX {
            tracing::debug!(node, bytes = usage.encoded_len(), "what the node uses is left out: too long");
            return;
        }
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, told| told.at.elapsed() <= AGE_MAX);
        held.insert(node.to_owned(), Told { uid: uid.to_owned(), at: Instant::now(), usage });
    }

    fn tell(&self, asked: &pb::UsagesRequest) -> Vec<pb::HeldUsage> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = held.iter().filter(|(_, told)| told.at.elapsed() <= AGE_MAX);
        fresh
            .map(|(node, told)| {
                let pods = told
                    .usage
                    .pods
                    .iter()
                    .filter(|pod| asked.pods && (asked.namespace.is_empty() || asked.namespace == pod.namespace));
                pb::HeldUsage {
                    node: node.clone(),
                    uid: told.uid.clone(),
                    age_ms: u64::try_from(told.at.elapsed().as_millis()).unwrap_or(u64::MAX),
                    usage: Some(pb::NodeUsage {
                        window_ms: told.usage.window_ms,
                        node: told.usage.node,
                        pods: pods.cloned().collect(),
                    }),
                }
            })
            .collect()
    }
}

impl Sessions {
    /// What the nodes told this master that are, or were a moment ago, connected to it.
    pub fn usages(&self, asked: &pb::UsagesRequest) -> Vec<pb::HeldUsage> {
        self.0.usages.tell(asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(window_ms: u32, pods: &[(&str, &str)]) -> pb::NodeUsage {
        let pod = |(namespace, name): &(&str, &str)| pb::PodUsage {
            namespace: (*namespace).to_owned(),
            name: (*name).to_owned(),
            ..Default::default()
        };
        pb::NodeUsage { window_ms, node: Some(pb::Used::default()), pods: pods.iter().map(pod).collect() }
    }

    #[tokio::test(start_paused = true)]
    async fn the_newest_is_told_until_it_is_old() {
        let held = Held::default();
        let asked = |pods, namespace: &str| pb::UsagesRequest { pods, namespace: namespace.to_owned() };
        let names = |asked: &pb::UsagesRequest| -> Vec<(String, u32, Vec<String>)> {
            let told = held.tell(asked).into_iter();
            told.map(|held| {
                let usage = held.usage.unwrap_or_default();
                (held.node, usage.window_ms, usage.pods.into_iter().map(|pod| pod.name).collect())
            })
            .collect()
        };
        held.keep("n1", "u1", usage(1, &[]));
        held.keep("n1", "u1", usage(2, &[("a", "x"), ("b", "y")]));
        tokio::time::advance(AGE_MAX / 2).await;
        held.keep("n2", "u2", usage(3, &[("b", "z")]));
        assert_eq!(names(&asked(false, "")), [("n1".into(), 2, vec![]), ("n2".into(), 3, vec![])]);
        let of_b = [("n1".into(), 2, vec!["y".into()]), ("n2".into(), 3, vec!["z".into()])];
        assert_eq!(names(&asked(true, "b")), of_b);
        assert_eq!(held.tell(&asked(false, ""))[0].age_ms, 30_000);
        tokio::time::advance(AGE_MAX / 2 + Duration::from_secs(1)).await;
        assert_eq!(names(&asked(false, "")), [("n2".into(), 3, vec![])], "n1 told nothing for too long");
        let pods: Vec<_> = (0..BYTES_MAX / 4).map(|_| ("a", "x")).collect();
        held.keep("n3", "u3", usage(4, &pods));
        assert_eq!(names(&asked(false, "")).len(), 1, "too long");
    }
}

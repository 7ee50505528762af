//! What all nodes use, for the API server: what they told this master, and what they told the others.
//!
//! Every other master is asked at once. One that does not answer in time is left out, and its nodes with it: figures of a
//! moment are worth no wait, and are there again when those nodes have found another master.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use apiserver::{NodeUsage, PodUsage, UsageQuery, Usages, Used};
use futures::StreamExt;
use rpc::pb;
use rpc::peer::{Lane, PeerClients};
use tonic::Status;

use crate::addresses::Addresses;
use crate::sessions::Sessions;

const ANSWER_LIMIT: Duration = Duration::from_secs(2);

pub struct NodeUsages {
    pub me: u64,
    pub sessions: Sessions,
    pub peers: PeerClients,
    pub addresses: Addresses,
    pub now: Arc<dyn Fn() -> jiff::Timestamp + Send + Sync>,
}

#[async_trait::async_trait]
impl Usages for NodeUsages {
    async fn usages(&self, query: &UsageQuery) -> Vec<NodeUsage> {
        let asked = pb::UsagesRequest { pods: query.pods, namespace: query.namespace.clone() };
        let others = self.addresses.members().into_iter().filter(|member| member.id != self.me);
        let told = futures::future::join_all(others.map(|member| self.of(member, asked.clone()))).await;
        let mut newest: BTreeMap<String, pb::HeldUsage> = BTreeMap::new();
        for held in told.into_iter().flatten().chain(self.sessions.usages(&asked)) {
            // A node that changed masters told both.
            if newest.get(&held.node).is_none_or(|known| known.age_ms > held.age_ms) {
                newest.insert(held.node.clone(), held);
            }
        }
        let now = (self.now)();
        newest.into_values().filter_map(|held| node(held, now)).collect()
    }
}

impl NodeUsages {
    async fn of(&self, member: pb::MemberInfo, asked: pb::UsagesRequest) -> Vec<pb::HeldUsage> {
        // Long lists: on the way of all that is bulky.
        let mut client = self.peers.client(member.id, &member.peer_address, Lane::Relay);
        let answer = tokio::time::timeout(ANSWER_LIMIT, async {
            let mut held = client.usages(asked).await?.into_inner();
            let mut all = Vec::new();
            while let Some(one) = held.next().await {
                all.push(one?);
            }
            Ok::<_, Status>(all)
        });
        match answer.await {
            Ok(Ok(all)) => all,
            Ok(Err(status)) => {
                tracing::debug!(
                    member = member.name,
                    message = status.message(),
                    "a master did not tell what nodes use"
                );
                Vec::new()
            }
            Err(_) => {
                tracing::debug!(member = member.name, "a master did not tell in time what nodes use");
                Vec::new()
            }
        }
    }
}

fn node(held: pb::HeldUsage, now: jiff::Timestamp) -> Option<NodeUsage> {
    let usage = held.usage?;
    let age = jiff::SignedDuration::from_millis(i64::try_from(held.age_ms).ok()?);
    Some(NodeUsage {
        node: held.node,
        uid: held.uid,
        taken: now.checked_sub(age).ok()?,
        window: Duration::from_millis(usage.window_ms.into()),
        used: used(usage.node),
        pods: usage.pods.into_iter().map(pod).collect(),
    })
}

fn pod(pod: pb::PodUsage) -> PodUsage {
    let containers = pod.containers.into_iter().map(|container| (container.name, used(container.used))).collect();
    PodUsage { namespace: pod.namespace, name: pod.name, uid: pod.uid, containers }
}

fn used(used: Option<pb::Used>) -> Used {
    let used = used.unwrap_or_default();
    Used { cpu_nanos: used.cpu_nanos, memory_bytes: used.memory_bytes }
}

//! Which members have no room on their disks, as the leader hears it with their answers to heartbeats: without a majority
//! that has room nothing can be written, and whoever wants to write is told so at once instead of waiting in vain.
//!
//! Not here: this member's own disk, which [`crate::disk`] watches.

use std::collections::BTreeMap;
use std::time::Duration;

use openraft::RaftMetrics;
use tokio::sync::watch;

use crate::types::Types;

/// A member that has not answered for so long does not count as one with room.
const SILENT: Duration = Duration::from_secs(3);

/// The members without room, and why.
#[derive(Default)]
pub struct Room(watch::Sender<BTreeMap<u64, String>>);

impl Room {
    /// What a member said.
    pub fn note(&self, member: u64, full: Option<String>) {
        self.0.send_if_modified(|known| match full {
            None => known.remove(&member).is_some(),
            Some(why) => known.insert(member, why).is_none(),
        });
    }

    pub fn watch(&self) -> watch::Receiver<BTreeMap<u64, String>> {
        self.0.subscribe()
    }

    /// Why nothing can be written by this leader, if too few voters have room. `own` says why it has none itself.
    pub fn lacks(&self, metrics: &RaftMetrics<Types>, own: Option<String>) -> Option<String> {
        let full = self.0.borrow();
        if full.is_empty() || metrics.current_leader != Some(metrics.id) {
            return None;
        }
        let voters: Vec<u64> = metrics.membership_config.voter_ids().collect();
        let silent = |id: &u64| {
            let heard = metrics.heartbeat.as_ref().and_then(|heard| heard.get(id)).and_then(|heard| *heard);
            heard.is_some_and(|instant| openraft::Instant::elapsed(&*instant) > SILENT)
        };
        let able = |id: &&u64| {
            if **id == metrics.id { own.is_none() } else { !full.contains_key(*id) && !silent(id) }
        };
        let with_room = voters.iter().filter(able).count();
        let needed = voters.len() / 2 + 1;
        if with_room >= needed {
            return None;
        }
        let name = |id: &u64| metrics.membership_config.get_node(id).map_or_else(String::new, |node| node.name.clone());
        let said: Vec<String> = full
            .iter()
            .filter(|(id, _)| voters.contains(id) && **id != metrics.id)
            .map(|(id, why)| format!("{} {why}", name(id)))
            .chain(own.map(|why| format!("{} {why}", name(&metrics.id))))
            .collect();
        Some(format!(
            "cannot write: of {} voting masters {needed} must answer and have room on their disks; now it is {with_room}. {}",
            voters.len(),
            said.join("; ")
        ))
    }
}

//! Node life on the leader: how long each node has been silent, judged once a second.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use replica::{Error, Term};
use state::State;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Leader;

/// How often silence is judged.
const JUDGE_EVERY: Duration = Duration::from_secs(1);

/// When each node was last heard from, by any master's session. Every master keeps one: the sessions of a master feed its
/// own, and the leader's is fed by the other masters' reports too.
#[derive(Clone, Debug, Default)]
pub struct Heard(Arc<Mutex<BTreeMap<String, Instant>>>);

impl Heard {
    /// The node was heard from `silent` ago; an older report than the known one changes nothing.
    pub fn heard(&self, node: &str, silent: Duration) {
        let now = Instant::now();
        let at = now.checked_sub(silent).unwrap_or(now);
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match map.get_mut(node) {
            Some(known) => *known = at.max(*known),
            None => {
                map.insert(node.to_owned(), at);
            }
        }
    }

    /// Every known node's silence in milliseconds.
    pub fn silences(&self) -> BTreeMap<String, u64> {
        let now = Instant::now();
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.iter().map(|(node, at)| (node.clone(), now.saturating_duration_since(*at).as_millis() as u64)).collect()
    }

    /// A new leader has heard nobody yet: every node counts as heard from now, and nodes that are gone are forgotten.
    pub fn grant_grace(&self, root: &State) {
        let now = Instant::now();
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *map = root.list("", "nodes", None).map(|(key, _)| (key.name.clone(), now)).collect();
    }

    /// Nodes that came into being since are granted a full grace too; deleted ones are forgotten.
    fn follow(&self, root: &State) {
        let now = Instant::now();
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.retain(|node, _| root.get(&state::Key::node(node)).is_some());
        for (key, _) in root.list("", "nodes", None) {
            if !map.contains_key(&key.name) {
                map.insert(key.name.clone(), now);
            }
        }
    }
}

pub async fn run(leader: Leader, term: Term, ended: CancellationToken) {
    let mut judge = tokio::time::interval(JUDGE_EVERY);
    judge.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = ended.cancelled() => return,
            _ = judge.tick() => {}
        }
        let root = leader.replica.root();
        leader.heard.follow(&root);
        let commands = control::nodelife::plan(&root, &leader.heard.silences(), &mut leader.context());
        drop(root);
        for outcome in
            futures::future::join_all(commands.into_iter().map(|command| leader.propose(term, command))).await
        {
            match outcome {
                // A refused one lost against another writer: judged again in a second.
                Ok(_) => {}
                Err(Error::Deposed(_)) => return,
                Err(error) => tracing::warn!(%error, "a change of node readiness failed; judged again"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_youngest_report_counts() {
        let heard = Heard::default();
        heard.heard("node-1", Duration::from_millis(700));
        heard.heard("node-1", Duration::from_millis(200));
        heard.heard("node-1", Duration::from_millis(900));
        assert_eq!(heard.silences()["node-1"], 200);
        tokio::time::advance(Duration::from_millis(300)).await;
        assert_eq!(heard.silences()["node-1"], 500);
    }
}

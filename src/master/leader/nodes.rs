//! Node life on the leader: how long each node has been silent, judged once a second or oftener.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use replica::{Error, Term};
use state::State;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{Leader, guarded};

/// How often silence is judged, at least.
const JUDGE_EVERY: Duration = Duration::from_secs(1);
/// And at most: a look costs a few microseconds a node.
const JUDGE_EVERY_MIN: Duration = Duration::from_millis(100);

/// A silence is noticed a quarter of the grace late at worst.
fn judge_every(grace: Duration) -> Duration {
    (grace / 4).clamp(JUDGE_EVERY_MIN, JUDGE_EVERY)
}

/// When each node was last heard from, by any master's session. Every master keeps one: the sessions of a master feed its
/// own, and the leader's is fed by the other masters' reports too.
#[derive(Clone, Debug, Default)]
pub struct Heard(Arc<Mutex<BTreeMap<String, Sign>>>);

/// The last sign of life of a node.
#[derive(Clone, Copy, Debug)]
struct Sign {
    at: Instant,
    /// Not heard, but forgiven until the grace is over, by a leader that is new.
    granted: bool,
}

impl Sign {
    fn granted(at: Instant) -> Self {
        Self { at, granted: true }
    }
}

impl Heard {
    /// The node was heard from `silent` ago; an older report than the known one changes nothing.
    pub fn heard(&self, node: &str, silent: Duration) {
        let now = Instant::now();
        let at = now.checked_sub(silent).unwrap_or(now);
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match map.get_mut(node) {
            Some(known) if !known.granted => known.at = at.max(known.at),
            _ => {
                map.insert(node.to_owned(), Sign { at, granted: false });
            }
        }
    }

    /// Every known node's silence in milliseconds.
    pub fn silences(&self) -> BTreeMap<String, u64> {
        self.judged(Duration::ZERO)
    }

    /// How long ago this node was heard by a session; `None` when it was not, or is only granted a grace.
    pub fn silence(&self, node: &str) -> Option<Duration> {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sign = map.get(node).filter(|sign| !sign.granted)?;
        Some(Instant::now().saturating_duration_since(sign.at))
    }

    /// The silences to judge by. A grace that is granted, not earned, is no sign of life: it only puts the judgement off,
    /// or a new leader would find every dead node alive.
    pub fn judged(&self, grace: Duration) -> BTreeMap<String, u64> {
        let now = Instant::now();
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.iter()
            .map(|(node, sign)| (node, sign.granted, now.saturating_duration_since(sign.at)))
            .filter(|(_, granted, silence)| !granted || *silence > grace)
            .map(|(node, _, silence)| (node.clone(), silence.as_millis() as u64))
            .collect()
    }

    /// Time in which this master could not hear is nobody's silence.
    pub fn forgive(&self, deaf: Duration) {
        let now = Instant::now();
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for sign in map.values_mut() {
            sign.at = (sign.at + deaf).min(now);
        }
    }

    /// A new leader has heard nobody yet: every node counts as heard from now, and nodes that are gone are forgotten.
    pub fn grant_grace(&self, root: &State) {
        let now = Instant::now();
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *map = root.list("", "nodes", None).map(|(key, _)| (key.name.clone(), Sign::granted(now))).collect();
    }

    /// Nodes that came into being since are granted a full grace too; deleted ones are forgotten.
    fn follow(&self, root: &State) {
        let now = Instant::now();
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.retain(|node, _| root.get(&state::Key::node(node)).is_some());
        for (key, _) in root.list("", "nodes", None) {
            if !map.contains_key(&key.name) {
                map.insert(key.name.clone(), Sign::granted(now));
            }
        }
    }
}

pub async fn run(leader: Leader, term: Term, ended: CancellationToken) {
    let mut judge = tokio::time::interval(judge_every(leader.context().settings.node_grace));
    judge.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = ended.cancelled() => return,
            _ = judge.tick() => {}
        }
        let root = leader.replica.root();
        leader.heard.follow(&root);
        let mut context = leader.context();
        let heard = leader.heard.judged(context.settings.node_grace);
        let commands = guarded("node life", "all nodes", || control::nodelife::plan(&root, &heard, &mut context));
        let commands = commands.unwrap_or_default();
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

    #[tokio::test(start_paused = true)]
    async fn lapses_of_the_lease_do_not_hide_a_dead_node() {
        let heard = Heard::default();
        heard.heard("dead", Duration::ZERO);
        for _ in 0..60 {
            tokio::time::advance(Duration::from_millis(150)).await;
            heard.forgive(Duration::from_millis(50));
        }
        assert_eq!(heard.silences()["dead"], 6000, "9 s went by, of which 3 s without a lease");
        heard.heard("alive", Duration::ZERO);
        heard.forgive(Duration::from_secs(3));
        assert_eq!(heard.silences()["alive"], 0, "and nobody is heard in the future");
    }

    #[tokio::test(start_paused = true)]
    async fn a_granted_grace_is_no_sign_of_life() {
        let heard = Heard::default();
        let grace = Duration::from_secs(5);
        heard.0.lock().unwrap().insert("node-1".into(), Sign::granted(Instant::now()));
        assert!(heard.judged(grace).is_empty(), "not judged at first");
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!(heard.judged(grace)["node-1"], 6000, "then silent");
        heard.heard("node-1", Duration::from_millis(100));
        assert_eq!(heard.judged(grace)["node-1"], 100, "until it is heard");
    }
}

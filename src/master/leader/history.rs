//! Keeps old versions readable for as long as the setting `history` says, and within `history-bytes`, which wins.

use std::collections::VecDeque;
use std::time::Duration;

use replica::{Error, Term};
use state::{Command, Compact, Op, Revision, op};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Leader;

/// How often the age of history is looked at, and its bytes: the byte bound may be overstepped by what is written meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Revisions are noted so often for their age, or four times within `history` if that is shorter.
const MARK_EVERY: Duration = Duration::from_secs(30);

pub async fn run(leader: Leader, term: Term, ended: CancellationToken) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut marks: VecDeque<(Instant, Revision)> = VecDeque::new();
    let mark_every = MARK_EVERY.min(leader.bounds.history / 4);
    loop {
        tokio::select! {
            () = ended.cancelled() => return,
            _ = look.tick() => {}
        }
        let root = leader.replica.root();
        let now = Instant::now();
        if marks.back().is_none_or(|(at, _)| now.saturating_duration_since(*at) >= mark_every) {
            marks.push_back((now, root.revision()));
        }
        let mut target = None;
        while let Some((at, revision)) = marks.front().copied() {
            if now.saturating_duration_since(at) < leader.bounds.history {
                break;
            }
            target = Some(revision);
            marks.pop_front();
        }
        metrics::gauge!("hactl_bound_used", "setting" => "history-bytes").set(root.history_bytes() as f64);
        if root.history_bytes() > leader.bounds.history_bytes {
            let middle = root.compacted() + (root.revision() - root.compacted()) / 2;
            tracing::warn!(
                bytes = root.history_bytes(),
                limit = leader.bounds.history_bytes,
                revision = middle,
                "history exceeds its byte bound: compacting younger versions"
            );
            target = target.max(Some(middle));
        }
        let Some(revision) = target.filter(|revision| *revision > root.compacted()) else { continue };
        drop(root);
        let command =
            Command { ops: vec![Op { kind: Some(op::Kind::Compact(Compact { revision })) }], ..Command::default() };
        match leader.propose(term, command).await {
            Ok(_) => {}
            Err(Error::Deposed(_)) => return,
            Err(error) => tracing::warn!(%error, "compaction failed; tried again later"),
        }
    }
}

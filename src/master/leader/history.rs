//! Keeps old versions readable for five minutes, and within a byte bound that wins.

use std::collections::VecDeque;
use std::time::Duration;

use replica::{Error, Term};
use state::{Command, Compact, Op, Revision, op};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Leader;

/// How long every version stays readable, unless the byte bound wins.
const KEEP: Duration = Duration::from_secs(300);
/// How often the age of history is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// History beyond this many bytes is cut to about half, however young.
const BYTES_MAX: u64 = 128 << 20;

pub async fn run(leader: Leader, term: Term, ended: CancellationToken) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut marks: VecDeque<(Instant, Revision)> = VecDeque::new();
    loop {
        tokio::select! {
            () = ended.cancelled() => return,
            _ = look.tick() => {}
        }
        let root = leader.replica.root();
        let now = Instant::now();
        marks.push_back((now, root.revision()));
        let mut target = None;
        while let Some((at, revision)) = marks.front().copied() {
            if now.saturating_duration_since(at) < KEEP {
                break;
            }
            target = Some(revision);
            marks.pop_front();
        }
        if root.history_bytes() > BYTES_MAX {
            let middle = root.compacted() + (root.revision() - root.compacted()) / 2;
            tracing::warn!(
                bytes = root.history_bytes(),
                limit = BYTES_MAX,
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

//! Keeps old versions readable for as long as the setting `history` says, and within `history-bytes`, which wins.

use std::collections::VecDeque;
use std::time::Duration;

use replica::{Error, Term};
use state::{Command, Compact, Op, Revision, op};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Leader;

/// How often the age of history is looked at, and its bytes: the byte bound may be overstepped by what is written meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The part of the byte bound that is made free when it is met, so that a steady stream of writes does not meet it all the time.
const FREED: u64 = 8;
/// Revisions that one command drops at most: it is applied in one piece, on the thread that also sends heartbeats.
const STEP: u64 = 1000;
/// How often a bound that is met again and again is told of.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// Revisions are noted so often for their age, or four times within `history` if that is shorter.
const MARK_EVERY: Duration = Duration::from_secs(30);

pub async fn run(leader: Leader, term: Term, ended: CancellationToken) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut marks: VecDeque<(Instant, Revision)> = VecDeque::new();
    let mut warned: Option<Instant> = None;
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
            let limit = leader.bounds.history_bytes;
            let upto = root.beyond_history(limit - limit / FREED);
            if warned.is_none_or(|at| now.saturating_duration_since(at) >= WARN_EVERY) {
                warned = Some(now);
                tracing::warn!(
                    bytes = root.history_bytes(),
                    limit,
                    revision = upto,
                    "history exceeds its byte bound (setting history-bytes): younger versions go too"
                );
            }
            target = target.max(Some(upto));
        }
        let compacted = root.compacted();
        drop(root);
        for revision in steps(compacted, target.unwrap_or(0)) {
            let command =
                Command { ops: vec![Op { kind: Some(op::Kind::Compact(Compact { revision })) }], ..Command::default() };
            match leader.propose(term, command).await {
                Ok(_) => {}
                Err(Error::Deposed(_)) => return,
                Err(error) => {
                    tracing::warn!(%error, "compaction failed; tried again later");
                    break;
                }
            }
        }
    }
}

/// The revisions at which a compaction from one to another stops.
fn steps(from: Revision, to: Revision) -> impl Iterator<Item = Revision> {
    let next = move |at: &Revision| (*at < to).then(|| at.saturating_add(STEP).min(to));
    std::iter::successors(next(&from), next)
}

#[cfg(test)]
mod tests {
    use replica::{Replica, memory};
    use state::{Header, Key, Put};
    use tokio_util::task::AbortOnDropHandle;

    use super::super::tests::leader;
    use super::*;

    /// A leader with these bounds, its loop under way.
    fn given(history: Duration, history_bytes: u64) -> (Replica, AbortOnDropHandle<()>) {
        let replica = memory::start();
        let mut leader = leader(replica.clone());
        (leader.bounds.history, leader.bounds.history_bytes) = (history, history_bytes);
        (replica, AbortOnDropHandle::new(tokio::spawn(run(leader, 1, CancellationToken::new()))))
    }

    #[test]
    fn what_is_dropped_is_dropped_in_steps() {
        for (from, to, expected) in
            [(0, 0, vec![]), (7, 3, vec![]), (7, 8, vec![8]), (7, 1007, vec![1007]), (7, 2500, vec![1007, 2007, 2500])]
        {
            assert_eq!(steps(from, to).collect::<Vec<_>>(), expected, "{from} to {to}");
        }
    }

    /// One more version of one object; its revision.
    async fn write(replica: &Replica, bytes: usize) -> Revision {
        let header = Header { uid: "u".into(), ..Header::default() };
        // Never the same twice, which would be no new version.
        let body = format!("{:bytes$}", replica.root().revision());
        let put = Put { key: Key::node("n1"), header, body: body.into_bytes().into(), ..Put::default() };
        let outcome = replica.propose(Command { ops: vec![Op::put(put)], ..Command::default() }).await;
        outcome.expect("an outcome").revision
    }

    #[tokio::test(start_paused = true)]
    async fn a_version_stays_readable_for_the_time_of_the_setting_and_not_much_longer() {
        let history = Duration::from_secs(300);
        let (replica, _running) = given(history, u64::MAX);
        let began = Instant::now();
        let mut written = Vec::new();
        while began.elapsed() < history * 3 {
            written.push((Instant::now(), write(&replica, 10).await));
            tokio::time::sleep(Duration::from_secs(7)).await;
            let root = replica.root();
            let readable = |revision: Revision| root.events_after(revision).is_ok();
            for (at, revision) in &written {
                if at.elapsed() < history {
                    assert!(readable(*revision), "{revision} is {:?} old", at.elapsed());
                } else if at.elapsed() > history + MARK_EVERY + 2 * LOOK_EVERY {
                    assert!(!readable(revision - 1), "{revision} is {:?} old", at.elapsed());
                }
            }
        }
        assert!(replica.root().compacted() > 0);
    }

    #[tokio::test(start_paused = true)]
    async fn history_is_within_its_bytes_however_fast_it_grows_and_keeps_the_youngest() {
        const BOUND: u64 = 1 << 20;
        const VERSION: usize = 50_000;
        let (replica, _running) = given(Duration::from_secs(300), BOUND);
        // Many small versions before the large ones: half of the revisions are next to nothing of the bytes.
        for _ in 0..1000 {
            write(&replica, 10).await;
        }
        for _ in 0..5 {
            for _ in 0..100 {
                write(&replica, VERSION).await;
            }
            assert!(replica.root().history_bytes() > BOUND);
            tokio::time::sleep(LOOK_EVERY + Duration::from_millis(1)).await;
            let root = replica.root();
            let (bytes, least) = (root.history_bytes(), BOUND - BOUND / FREED - 2 * VERSION as u64);
            assert!((least..=BOUND).contains(&bytes), "{bytes}");
        }
    }
}

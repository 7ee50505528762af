//! Puts the leader's `store-quota` into the state, where it binds every member alike.

use std::time::Duration;

use replica::{Error, Term};
use state::{Command, Op, SetQuota, op};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::Leader;

/// How often the state is compared with the setting: the state may learn what a quota is while this term lasts.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The first version of the state that knows a quota.
const VERSION: u32 = 2;

pub async fn run(leader: Leader, term: Term, ended: CancellationToken) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = ended.cancelled() => return,
            _ = look.tick() => {}
        }
        let root = leader.replica.root();
        let bytes = leader.bounds.quota;
        if root.version() < VERSION || root.quota() == bytes {
            continue;
        }
        drop(root);
        let command =
            Command { ops: vec![Op { kind: Some(op::Kind::SetQuota(SetQuota { bytes })) }], ..Command::default() };
        match leader.propose(term, command).await {
            Ok(_) => tracing::info!(bytes, "the store's quota is set"),
            Err(Error::Deposed(_)) => return,
            Err(error) => tracing::warn!(%error, "the store's quota could not be set; tried again later"),
        }
    }
}

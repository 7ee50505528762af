//! Hands leadership over when this member's disk is full, to a member whose disk is not.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::service::{Shared, status};

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks once a second. Where every disk is full the leader stays: it still answers reads.
pub async fn step_aside(shared: Arc<Shared>, shutdown: CancellationToken) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = look.tick() => {}
        }
        if !shared.consensus.is_disk_full() || shared.replica.leadership().borrow().leading.is_none() {
            continue;
        }
        let Some(to) = with_room(&shared).await else { continue };
        match shared.consensus.transfer_leader(to).await {
            Ok(()) => tracing::warn!(to, "the disk is full: leadership was handed over"),
            Err(error) => tracing::warn!(to, %error, "the disk is full, and leadership could not be handed over"),
        }
    }
}

/// The voter with room on its disk that is furthest.
async fn with_room(shared: &Shared) -> Option<u64> {
    let mut best = None;
    for known in shared.consensus.members().into_iter().filter(|known| known.voter) {
        let id = known.member.id;
        if id == shared.config.member_id {
            continue;
        }
        let Some(answer) = status::ask(shared, &crate::peers::info(&known.member)).await else { continue };
        let full = answer.disk.is_some_and(|disk| disk.full);
        if !full && answer.role != "stopped" {
            best = best.max(Some((answer.last_log_index, id)));
        }
    }
    best.map(|(_, id)| id)
}

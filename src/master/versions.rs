//! Rules of the state that a newer version brings are used only when every member knows them: the leader raises the state's
//! version to the newest that all support, step by step as masters are upgraded.
//!
//! **Invariant:** the version is never raised beyond what a member that did not answer is known to support.

use std::sync::Arc;
use std::time::Duration;

use rpc::pb;
use state::{Command, Op, RaiseVersion, op};
use tokio_util::sync::CancellationToken;

use crate::records;
use crate::service::{Shared, status};

/// How often a leader looks while something may be raised, and while nothing can be.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const IDLE: Duration = Duration::from_secs(10);

/// Raises the version whenever this member leads and all are able, until `shutdown`.
pub async fn keep(shared: Arc<Shared>, shutdown: CancellationToken) {
    let mut wait = LOOK_EVERY;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        let leads = shared.replica.leadership().borrow().leading.is_some();
        let present = shared.replica.root().version();
        wait = if present < state::VERSION { LOOK_EVERY } else { IDLE };
        if !leads || present >= state::VERSION {
            continue;
        }
        let Some(target) = supported(&shared).await.filter(|target| *target > present) else {
            wait = IDLE;
            continue;
        };
        let command = Command {
            ops: vec![Op { kind: Some(op::Kind::RaiseVersion(RaiseVersion { version: target })) }],
            time_ms: shared.now().as_millisecond(),
            ..Command::default()
        };
        match records::propose(&shared.replica, command).await {
            Ok(_) => tracing::info!(from = present, to = target, "all masters know newer rules: they hold from now on"),
            Err(status) => tracing::debug!(message = status.message(), "the version was not raised; tried again"),
        }
    }
}

/// The newest version that every member supports; `None` while one does not say.
async fn supported(shared: &Shared) -> Option<u32> {
    let others = shared.addresses.members().into_iter().filter(|member| member.id != shared.config.member_id);
    let answers =
        futures::future::join_all(others.map(|member| async move { status::ask(shared, &member).await })).await;
    lowest(&answers)
}

fn lowest(answers: &[Option<pb::MemberStatusResponse>]) -> Option<u32> {
    // A member older than the field says 0, and knows the first version.
    let known = answers.iter().map(|answer| answer.as_ref().map(|answer| answer.supported_version.max(1)));
    known.chain([Some(state::VERSION)]).min().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_member_decides_and_a_silent_one_holds_all_back() {
        let says = |supported_version| Some(pb::MemberStatusResponse { supported_version, ..Default::default() });
        for (answers, want) in [
            (vec![], Some(state::VERSION)),
            (vec![says(state::VERSION + 1), says(state::VERSION)], Some(state::VERSION)),
            (vec![says(0), says(state::VERSION)], Some(1)),
            (vec![says(state::VERSION), None], None),
        ] {
            assert_eq!(lowest(&answers), want, "{answers:?}");
        }
    }
}

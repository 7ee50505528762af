//! Rules of the state that a newer version brings are used only when every member knows them: the leader raises the state's
//! version to the newest that all support, step by step as masters are upgraded.
//!
//! **Invariant:** the version is never raised beyond what a member that did not answer is known to support.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use replica::Replica;
use state::{Command, Op, RaiseVersion, op};
use tokio_util::sync::CancellationToken;

use crate::records;
use crate::service::{Shared, status};

/// How often a leader looks while something may be raised, and while nothing can be.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const IDLE: Duration = Duration::from_secs(10);

/// What raising the version takes.
pub struct Raise {
    pub replica: Replica,
    /// The newest version that this member supports.
    pub newest: u32,
    /// Asks every other member for the newest that it supports; `None` for one that does not say.
    pub ask: Box<dyn Fn() -> BoxFuture<'static, Vec<Option<u32>>> + Send + Sync>,
    pub now: Arc<dyn Fn() -> jiff::Timestamp + Send + Sync>,
}

/// Raises the version whenever this member leads and all are able, until `shutdown`.
pub(crate) async fn keep(shared: Arc<Shared>, shutdown: CancellationToken) {
    let (replica, clock) = (shared.replica.clone(), shared.clone());
    let ask = Box::new(move || supported(shared.clone()).boxed());
    Raise { replica, newest: state::VERSION, ask, now: Arc::new(move || clock.now()) }.run(shutdown).await;
}

impl Raise {
    pub async fn run(self, shutdown: CancellationToken) {
        let mut wait = LOOK_EVERY;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            let leads = self.replica.leadership().borrow().leading.is_some();
            let present = self.replica.root().version();
            wait = if present < self.newest { LOOK_EVERY } else { IDLE };
            if !leads || present >= self.newest {
                continue;
            }
            let Some(target) = lowest(&(self.ask)().await, self.newest).filter(|target| *target > present) else {
                wait = IDLE;
                continue;
            };
            let command = Command {
                ops: vec![Op { kind: Some(op::Kind::RaiseVersion(RaiseVersion { version: target })) }],
                time_ms: (self.now)().as_millisecond(),
                ..Command::default()
            };
            match records::propose(&self.replica, command).await {
                Ok(_) => {
                    tracing::info!(from = present, to = target, "all masters know newer rules: they hold from now on");
                }
                Err(status) => tracing::debug!(message = status.message(), "the version was not raised; tried again"),
            }
        }
    }
}

async fn supported(shared: Arc<Shared>) -> Vec<Option<u32>> {
    let others = shared.addresses.members().into_iter().filter(|member| member.id != shared.config.member_id);
    let shared = &shared;
    let answers = others.map(|member| async move { Some(status::ask(shared, &member).await?.supported_version) });
    futures::future::join_all(answers).await
}

/// The newest version that every member supports; `None` while one does not say.
fn lowest(answers: &[Option<u32>], own: u32) -> Option<u32> {
    if state::mutants::is_chosen("hasty-raise") {
        return Some(own);
    }
    // A member older than the field says 0, and knows the first version.
    let known = answers.iter().map(|answer| answer.map(|version| version.max(1)));
    known.chain([Some(own)]).min().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_member_decides_and_a_silent_one_holds_all_back() {
        for (answers, want) in [
            (vec![], Some(2)),
            (vec![Some(3), Some(2)], Some(2)),
            (vec![Some(0), Some(2)], Some(1)),
            (vec![Some(2), None], None),
        ] {
            assert_eq!(lowest(&answers, 2), want, "{answers:?}");
        }
    }
}

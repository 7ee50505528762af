//! Compares this member's state with the others' while all run: equal revisions must have equal hashes.
//!
//! Each member notes its hash at every revision it publishes; every now and then it asks the others for theirs.
//!
//! Not here: what to do about it. Which of two states is the right one cannot be told by a member that holds one of them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use state::Revision;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::service::{Shared, status};

const COMPARE_EVERY: Duration = Duration::from_secs(10);
/// Revisions whose hash is remembered: more than are written while a question is under way.
const REMEMBERED: usize = 4096;

#[derive(Default)]
pub struct Agreement(Mutex<Known>);

#[derive(Default)]
struct Known {
    hashes: VecDeque<(Revision, u128)>,
    problem: Option<String>,
}

impl Agreement {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is wrong, in words that follow the member's name. It stays until the member is started again.
    pub fn problem(&self) -> Option<String> {
        self.lock().problem.clone()
    }

    fn note(&self, revision: Revision, hash: u128) {
        let mut known = self.lock();
        if known.hashes.back().is_some_and(|(last, _)| *last >= revision) {
            return;
        }
        if known.hashes.len() >= REMEMBERED {
            known.hashes.pop_front();
        }
        known.hashes.push_back((revision, hash));
    }

    /// Whether another member holds the same at that revision; `None` where that cannot be told.
    fn compare(&self, name: &str, revision: Revision, hash: &str) -> Option<bool> {
        let mut known = self.lock();
        let at = known.hashes.binary_search_by_key(&revision, |(revision, _)| *revision).ok()?;
        let own = format!("{:032x}", known.hashes[at].1);
        if own == hash {
            return Some(true);
        }
        let problem = format!(
            "holds another state than {name} at revision {revision} (hash {own}, there {hash}): this must never happen. Keep both \
             data dirs and report it; of three members replace the one that differs from the two others"
        );
        if known.problem.is_none() {
            tracing::error!("this master {problem}");
        }
        known.problem = Some(problem);
        Some(false)
    }
}

/// Notes and compares until `shutdown`.
pub async fn watch(shared: Arc<Shared>, shutdown: CancellationToken) {
    let mut applied = shared.replica.applied();
    let mut look = tokio::time::interval(COMPARE_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = applied.changed() => {
                if changed.is_err() {
                    return;
                }
                let root = shared.replica.root();
                shared.agreement.note(root.revision(), root.hash());
            }
            _ = look.tick() => compare(&shared).await,
        }
    }
}

async fn compare(shared: &Shared) {
    let root = shared.replica.root();
    shared.agreement.note(root.revision(), root.hash());
    drop(root);
    for member in shared.addresses.members().into_iter().filter(|member| member.id != shared.config.member_id) {
        let Some(answer) = status::ask(shared, &member).await else { continue };
        match shared.agreement.compare(&member.name, answer.revision, &answer.state_hash) {
            Some(true) => metrics::counter!("hactl_state_comparisons_total", "result" => "equal").increment(1),
            Some(false) => metrics::counter!("hactl_state_comparisons_total", "result" => "different").increment(1),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_revisions_must_have_equal_hashes() {
        let agreement = Agreement::default();
        for revision in [3, 5, 5, 4, 9] {
            agreement.note(revision, u128::from(revision) * 7);
        }
        let hash = |value: u128| format!("{value:032x}");
        assert_eq!(agreement.compare("b", 5, &hash(35)), Some(true));
        assert_eq!(agreement.compare("b", 4, &hash(28)), None, "never published here");
        assert_eq!(agreement.problem(), None);
        assert_eq!(agreement.compare("b", 9, &hash(62)), Some(false));
        let problem = agreement.problem().expect("said");
        assert!(problem.contains("than b at revision 9"), "{problem}");
        for revision in 10..2 * REMEMBERED as u64 {
            agreement.note(revision, 0);
        }
        assert_eq!(agreement.lock().hashes.len(), REMEMBERED);
        assert!(agreement.problem().is_some(), "it is not forgotten");
    }
}

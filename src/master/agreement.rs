//! Compares this member's state with the others' while all run: equal revisions must have equal hashes.
//!
//! ```text
//!   every 10 s   each other member's hash at its present revision = ours then?   yes: nothing
//!                no: everybody's hash at that revision                           most have one, we another: quarantine
//!                                                                                we are with most: the other one finds out
//!                                                                                no majority: said, nothing done
//! ```
//!
//! Which of two states is the right one a member that holds one of them cannot tell; what a majority holds is what its
//! clients were told. So a member only ever judges itself.
//!
//! Not here: the hashes, which consensus remembers, and what a quarantined member no longer does, which it knows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::service::{Shared, status};

const COMPARE_EVERY: Duration = Duration::from_secs(10);

/// What the comparisons found out.
#[derive(Default)]
pub struct Agreement(Mutex<Option<String>>);

impl Agreement {
    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is wrong, in words that follow the member's name. It stays until the member is started again.
    pub fn problem(&self) -> Option<String> {
        self.lock().clone()
    }

    fn say(&self, problem: String) {
        tracing::error!("this master {problem}");
        *self.lock() = Some(problem);
    }
}

/// As members tell each other.
pub fn text(hash: u128) -> String {
    format!("{hash:032x}")
}

/// What one member is to think of its own state.
#[derive(Debug, PartialEq, Eq)]
enum Verdict<'a> {
    /// So many voters hold another one, and the same.
    Minority { others: Vec<&'a str>, hash: &'a str },
    /// Most hold what we hold; these do not.
    Majority { others: Vec<&'a str> },
    /// Nobody has a majority.
    Unclear,
}

/// `voters` are the other voters that told their hash at one revision; `all` is the number of voters.
fn judge<'a>(own: &str, votes: bool, voters: &'a [(String, String)], all: usize) -> Verdict<'a> {
    let mut holders: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, hash) in voters {
        holders.entry(hash).or_default().push(name);
    }
    let majority = all / 2 + 1;
    let with_us = holders.get(own).map_or(0, Vec::len) + usize::from(votes);
    if with_us >= majority {
        let others = voters.iter().filter(|(_, hash)| hash != own).map(|(name, _)| name.as_str()).collect();
        return Verdict::Majority { others };
    }
    match holders.into_iter().find(|(hash, names)| *hash != own && names.len() >= majority) {
        Some((hash, others)) => Verdict::Minority { others, hash },
        None => Verdict::Unclear,
    }
}

/// Compares until `shutdown`. `serving` ends when this member's state must be shown to nobody any more.
pub async fn watch(shared: Arc<Shared>, serving: CancellationToken, shutdown: CancellationToken) {
    metrics::gauge!("hactl_state_quarantined").set(0.0);
    let mut look = tokio::time::interval(COMPARE_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = look.tick() => {}
        }
        let Some(why) = differs(&shared).await else { continue };
        // Watches and the sessions of nodes end, and go on at another master.
        serving.cancel();
        shared.sessions.end_all();
        shared.consensus.quarantine(&why).await;
    }
}

/// Why this member must be quarantined, if it must.
async fn differs(shared: &Shared) -> Option<String> {
    if let Some(why) = shared.consensus.quarantined() {
        // Leadership may have come back.
        return Some(why);
    }
    let others: Vec<_> =
        shared.addresses.members().into_iter().filter(|member| member.id != shared.config.member_id).collect();
    let mut at = None;
    for member in &others {
        let Some(answer) = status::ask(shared, member).await else { continue };
        let Some(own) = shared.consensus.hash_at(answer.revision) else { continue };
        let equal = text(own) == answer.state_hash;
        let result = if equal { "equal" } else { "different" };
        metrics::counter!("hactl_state_comparisons_total", "result" => result).increment(1);
        if !equal {
            at = Some((answer.revision, text(own)));
        }
    }
    let (revision, own) = at?;
    let voters = shared.consensus.members().into_iter().filter(|member| member.voter);
    let voters: Vec<u64> = voters.map(|member| member.member.id).collect();
    let asked = others.iter().filter(|member| voters.contains(&member.id)).map(async |member| {
        let answer = status::ask_at(shared, member, revision).await?;
        (!answer.state_hash_at.is_empty()).then(|| (member.name.clone(), answer.state_hash_at))
    });
    let told: Vec<_> = futures::future::join_all(asked).await.into_iter().flatten().collect();
    match judge(&own, voters.contains(&shared.config.member_id), &told, voters.len()) {
        Verdict::Minority { others, hash } => Some(format!(
            "at revision {revision} it holds another state than {} (hash {own}, there {hash}). This must never happen: keep \
             its data dir and report it",
            others.join(" and ")
        )),
        Verdict::Majority { others } => {
            tracing::error!(
                revision,
                "{} hold(s) another state than most masters, this one among them",
                others.join(", ")
            );
            None
        }
        Verdict::Unclear => {
            shared.agreement.say(format!(
                "holds another state than another master at revision {revision} (hash {own}), and no majority says which is \
                 right: this must never happen. Keep all data dirs and report it; `hactl cluster snapshot restore` goes back \
                 to one state"
            ));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_most_hold_is_right() {
        let told = |told: &[(&str, &str)]| -> Vec<(String, String)> {
            told.iter().map(|(name, hash)| ((*name).to_owned(), (*hash).to_owned())).collect()
        };
        let two = told(&[("b", "x"), ("c", "x")]);
        assert_eq!(judge("y", true, &two, 3), Verdict::Minority { others: vec!["b", "c"], hash: "x" });
        assert_eq!(judge("y", false, &two, 3), Verdict::Minority { others: vec!["b", "c"], hash: "x" }, "a learner");
        assert_eq!(judge("x", true, &two, 3), Verdict::Majority { others: vec![] });
        let split = told(&[("b", "x"), ("c", "y")]);
        assert_eq!(judge("y", true, &split, 3), Verdict::Majority { others: vec!["b"] });
        assert_eq!(judge("z", true, &split, 3), Verdict::Unclear, "all differ");
        assert_eq!(judge("y", true, &two[..1], 2), Verdict::Unclear, "one of two");
        assert_eq!(judge("y", true, &two[..1], 3), Verdict::Unclear, "the third did not tell");
    }
}

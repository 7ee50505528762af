//! What is said while nobody leads: which masters were heard when, and what to do. A user who reads "no leader" must not have
//! to guess which machine to look at.

use std::time::Duration;

use crate::service::Shared;

/// Heard within this: it lives. Heartbeats and votes come several times a second.
const LIVES: Duration = Duration::from_secs(2);

/// One voting master other than this one.
struct Other {
    name: String,
    heard: Option<Duration>,
}

impl Other {
    fn lives(&self) -> bool {
        self.heard.is_some_and(|ago| ago < LIVES)
    }
}

/// Empty while a leader is heard.
pub fn without_leader(shared: &Shared) -> String {
    let leadership = shared.replica.leadership().borrow().clone();
    let led = leadership.leader.and_then(|id| shared.peers.heard(id)).is_some_and(|ago| ago < LIVES);
    if leadership.leading.is_some() || led {
        return String::new();
    }
    let voters = shared.consensus.members().into_iter().filter(|known| known.voter);
    let others = voters.filter(|known| known.member.id != shared.config.member_id);
    let others = others.map(|known| Other { heard: shared.peers.heard(known.member.id), name: known.member.name });
    describe(&shared.config.name, &others.collect::<Vec<_>>())
}

fn describe(own: &str, others: &[Other]) -> String {
    let all = others.len() + 1;
    let needed = all / 2 + 1;
    let living = 1 + others.iter().filter(|other| other.lives()).count();
    let seen: Vec<String> = others
        .iter()
        .map(|other| match other.heard {
            _ if other.lives() => format!("{} just now", other.name),
            Some(ago) => format!("{} {} s ago", other.name, ago.as_secs()),
            None => format!("{} not since it started", other.name),
        })
        .collect();
    let heard = if seen.is_empty() { String::new() } else { format!("{own} last heard {}; ", seen.join(", ")) };
    if living >= needed {
        return format!("{heard}an election is under way, which takes a second as a rule: try again");
    }
    format!(
        "{heard}{needed} of {all} masters are needed: start the missing ones (`hactl cluster status` names them); if they are \
         lost for good, docs/disasters.md says what to type"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_heard_and_what_to_do() {
        let other = |name: &str, heard: Option<u64>| Other { name: name.into(), heard: heard.map(Duration::from_secs) };
        let lost = describe("a", &[other("b", Some(14)), other("c", None)]);
        assert!(
            lost.starts_with("a last heard b 14 s ago, c not since it started; 2 of 3 masters are needed: start"),
            "{lost}"
        );
        let election = describe("a", &[other("b", Some(0)), other("c", Some(60))]);
        assert!(election.starts_with("a last heard b just now, c 60 s ago; an election is under way"), "{election}");
        assert!(describe("a", &[]).starts_with("an election"), "one alone");
    }
}

//! Ports that Services ask for: one holder at a time.

use std::collections::BTreeMap;

use super::Judged;
use crate::run::history::{Call, Micros, Record};

/// Whoever was told that it has a port has it until it asks for its own deletion; meanwhile nobody else is told so.
pub fn judge(record: &Record) -> Judged {
    let mut judged = Judged::default();
    let mut held: BTreeMap<&str, Vec<(Micros, Micros, &str)>> = BTreeMap::new();
    let own = || record.operations.iter().filter(|one| one.workload == "services");
    let mut deleted: BTreeMap<&str, Micros> = BTreeMap::new();
    for one in own().filter(|one| one.call == Call::Delete) {
        deleted.entry(&one.object).or_insert(one.begun);
    }
    for made in own().filter(|one| one.is_acknowledged_write()) {
        let Call::Create(port) = &made.call else { continue };
        let from = made.end();
        // What a cluster that began anew has forgotten is held no more.
        let lost = record.restores.iter().map(|restore| restore.lost).filter(|lost| *lost >= from);
        let until = deleted.get(made.object.as_str()).copied().into_iter().chain(lost).min().unwrap_or(Micros::MAX);
        held.entry(port).or_default().push((from, until, &made.object));
        judged.checked += 1;
    }
    for (port, mut times) in held {
        times.sort_unstable();
        for pair in times.windows(2) {
            if pair[1].0 < pair[0].1 {
                judged.broken.push(format!("port {port} belonged to {} and to {} at once", pair[0].2, pair[1].2));
            }
        }
    }
    judged
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, did, refused, unknown};
    use super::*;
    use crate::run::history::Outcome;

    #[test]
    fn a_port_with_two_holders_is_found() {
        let create =
            |object: &str, times, outcome| did("services", "c", object, times, Call::Create("1".into()), outcome);
        let delete = |object: &str, times, outcome| did("services", "c", object, times, Call::Delete, outcome);
        let (one, two) = (create("a", (0, 1), Outcome::Done(1)), create("b", (5, 6), Outcome::Done(3)));
        check(judge, vec![one.clone(), create("b", (5, 6), refused())], 0);
        check(judge, vec![one.clone(), create("b", (5, 6), unknown())], 0);
        check(judge, vec![one.clone(), delete("a", (2, 3), Outcome::Done(2)), two.clone()], 0);
        // A deletion that may still come about frees the port.
        check(judge, vec![one.clone(), delete("a", (2, 3), unknown()), two.clone()], 0);
        check(judge, vec![one.clone(), two.clone()], 1);
        check(judge, vec![one, two, delete("a", (7, 8), Outcome::Done(4))], 1);
    }
}

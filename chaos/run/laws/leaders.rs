//! Who led, by the masters' own words.

use std::collections::BTreeMap;

use super::Judged;
use crate::run::history::Record;

/// In a term one master leads. A cluster that began anew begins its terms anew.
pub fn one_per_term(record: &Record) -> Judged {
    let mut judged = Judged::default();
    let mut leaders: BTreeMap<(usize, u64), &str> = BTreeMap::new();
    for seat in record.seats.iter().filter(|seat| seat.answers && seat.leads) {
        let epoch = record.restores.iter().filter(|restore| restore.lost <= seat.at).count();
        let first = leaders.entry((epoch, seat.term)).or_insert(&seat.master);
        if *first != seat.master {
            judged.broken.push(format!("{first} and {} both led in term {}", seat.master, seat.term));
        }
    }
    judged.checked = leaders.len();
    judged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::history::{Restore, Seat};

    #[test]
    fn two_leaders_of_a_term_are_found() {
        let check = |seats: &[(u64, &str, bool, u64)], restores: Vec<Restore>, (checked, broken): (usize, usize)| {
            let seat = |&(at, master, leads, term): &(u64, &str, bool, u64)| Seat {
                at,
                master: master.into(),
                answers: true,
                leads,
                term,
            };
            let record = Record { seats: seats.iter().map(seat).collect(), restores, ..Record::default() };
            let judged = one_per_term(&record);
            assert_eq!((judged.checked, judged.broken.len()), (checked, broken), "{:?}", judged.broken);
        };
        check(&[], vec![], (0, 0));
        check(&[(1, "a", true, 1), (2, "b", false, 1), (3, "b", true, 2), (4, "a", true, 3)], vec![], (3, 0));
        check(&[(1, "a", true, 1), (2, "a", false, 1), (3, "b", true, 1)], vec![], (1, 1));
        let anew = Restore { saved: 1, lost: 2 };
        check(&[(1, "a", true, 1), (3, "b", true, 1)], vec![anew], (2, 0));
    }
}

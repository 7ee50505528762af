//! How much of the log stays behind a snapshot, for members that are a little late: so many entries, and so many bytes of
//! them, whichever is less.
//!
//! Not here: the purge itself, which openraft carries out. Its own rule counts entries only, and a thousand large ones are
//! many times the bound on the log's size.

use std::collections::VecDeque;

/// The newest applied entries that stay.
#[derive(Debug)]
pub struct Kept {
    entries_max: u64,
    bytes_max: u64,
    /// Index and size, in order.
    entries: VecDeque<(u64, u64)>,
    bytes: u64,
    /// The last entry that need not stay.
    beyond: Option<u64>,
}

impl Kept {
    pub fn new(entries_max: u64, bytes_max: u64) -> Self {
        Self { entries_max, bytes_max, entries: VecDeque::new(), bytes: 0, beyond: None }
    }

    /// An entry was applied. One that was noted before changes nothing.
    pub fn note(&mut self, index: u64, bytes: u64) {
        let noted = self.entries.back().map(|(index, _)| *index).or(self.beyond);
        if noted.is_some_and(|noted| index <= noted) {
            return;
        }
        self.entries.push_back((index, bytes));
        self.bytes += bytes;
        while self.bytes > self.bytes_max || self.entries.len() as u64 > self.entries_max {
            let Some((index, bytes)) = self.entries.pop_front() else { return };
            self.bytes -= bytes;
            self.beyond = Some(index);
        }
    }

    /// The last entry that may go as soon as a snapshot covers it.
    pub fn beyond(&self) -> Option<u64> {
        self.beyond
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_is_bounded_by_count_and_by_bytes() {
        let mut kept = Kept::new(3, 100);
        for (index, bytes, beyond) in [
            (5, 10, None),
            (6, 10, None),
            (7, 10, None),
            // One too many.
            (8, 10, Some(5)),
            // Applied again after the disk was opened again.
            (7, 10, Some(5)),
            (9, 85, Some(7)),
            // Larger than all that may stay.
            (10, 101, Some(10)),
            (10, 101, Some(10)),
            (11, 1, Some(10)),
        ] {
            kept.note(index, bytes);
            assert_eq!(kept.beyond(), beyond, "after {index}");
        }
        assert_eq!((kept.entries.len(), kept.bytes), (1, 1));
    }
}

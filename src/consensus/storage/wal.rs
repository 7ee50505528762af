//! Looks through RocksDB's write-ahead log for damage: is a bad record the last, or do valid ones follow it?
//!
//! The format is stable and small: blocks of 32 KiB, each a row of records `crc32c(4) length(2) type(1) payload`; the
//! last bytes of a block too few for a header are zeros. Recyclable records (types 5 to 8) carry four more header bytes.
//! After a damaged record the rest of its block cannot be followed, so the search goes on at the next block.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;

const BLOCK: usize = 32 << 10;
const HEADER: usize = 7;

pub struct Damage {
    pub file: PathBuf,
    pub offset: u64,
    pub followed_by_valid: bool,
}

/// The first damaged place of the write-ahead logs in `dir`, oldest file first; `None` if all is well.
pub fn first_damage(dir: &Path) -> Result<Option<Damage>, Error> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    files.sort();
    let mut found: Option<Damage> = None;
    for file in files {
        let bytes = fs::read(&file)?;
        match &mut found {
            Some(damage) => damage.followed_by_valid |= first_valid_block(&bytes, 0),
            None => {
                found = damage_in(&bytes).map(|offset| Damage {
                    file: file.clone(),
                    offset: offset as u64,
                    followed_by_valid: first_valid_block(&bytes, offset / BLOCK * BLOCK + BLOCK)
                        || valid_after_in_block(&bytes, offset),
                });
            }
        }
    }
    Ok(found)
}

enum Step {
    Record(usize),
    /// Zeros: preallocated, or the end of a block.
    Blank,
    Bad,
}

fn step(bytes: &[u8], at: usize) -> Step {
    let block_end = (at / BLOCK * BLOCK + BLOCK).min(bytes.len());
    let left = &bytes[at..block_end];
    if left.len() < HEADER {
        return if left.iter().all(|byte| *byte == 0) { Step::Blank } else { Step::Bad };
    }
    if left[..HEADER].iter().all(|byte| *byte == 0) {
        return Step::Blank;
    }
    let length = usize::from(u16::from_le_bytes([left[4], left[5]]));
    let header = if (5..=8).contains(&left[6]) { HEADER + 4 } else { HEADER };
    if left.len() < header + length {
        return Step::Bad;
    }
    let stored = u32::from_le_bytes([left[0], left[1], left[2], left[3]]);
    if unmask(stored) == crc32c(&left[6..header + length]) { Step::Record(at + header + length) } else { Step::Bad }
}

fn damage_in(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at < bytes.len() {
        match step(bytes, at) {
            Step::Record(next) => at = next,
            Step::Blank => at = at / BLOCK * BLOCK + BLOCK,
            Step::Bad => return Some(at),
        }
    }
    None
}

fn first_valid_block(bytes: &[u8], from: usize) -> bool {
    (from..bytes.len()).step_by(BLOCK).any(|at| matches!(step(bytes, at), Step::Record(_)))
}

/// A record whose header survived still tells where the next one begins; one whose header did not is searched past.
fn valid_after_in_block(bytes: &[u8], bad: usize) -> bool {
    let block_end = (bad / BLOCK * BLOCK + BLOCK).min(bytes.len());
    (bad + 1..block_end.saturating_sub(HEADER)).any(|at| {
        // A zero-length record of zeros would be found in any blank space.
        bytes[at + 4..at + 6] != [0, 0]
            && (1..=8).contains(&bytes[at + 6])
            && matches!(step(bytes, at), Step::Record(_))
    })
}

/// RocksDB stores checksums rotated and offset, so that a checksum of checksums stays useful.
fn unmask(masked: u32) -> u32 {
    masked.wrapping_sub(0xa282_ead8).rotate_right(17)
}

/// CRC-32C, bitwise: runs only over a damaged log.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_matches_the_published_vector() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}

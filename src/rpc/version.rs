//! The version of the messages between our own parts. Every peer call and every session of a node says it, so that what
//! one side cannot understand is refused with the cure instead of being misread.
//!
//! Adding a field or a call changes nothing here: who does not know it ignores it, or says so. Raise [`WIRE`] where the
//! other side must know whether it may send something, and [`OLDEST`] where older ones can no longer be talked to.
//!
//! **Invariant:** two neighbouring releases understand each other.

/// What this build speaks. 2: nodes tell what they use.
pub const WIRE: u32 = 2;
/// From which version on a master takes what a node uses.
pub const USAGE: u32 = 2;
/// The oldest that this build still talks to.
pub const OLDEST: u32 = 1;

/// Whether this build and another understand each other. `speaks` is what the other speaks, `needs` the oldest it talks
/// to; 0 for both: one from before they were said, which is version 1.
///
/// # Errors
/// In words that name who must be upgraded.
pub fn check(who: &str, speaks: u32, needs: u32) -> Result<(), String> {
    if needs > WIRE {
        return Err(format!(
            "{who} speaks version {speaks} of the messages and understands none before {needs}; this hactl knows {WIRE}: install \
             the newer hactl here"
        ));
    }
    if speaks.max(1) < OLDEST {
        return Err(format!(
            "{who} speaks version {} of the messages; this hactl understands none before {OLDEST}: install the newer hactl there",
            speaks.max(1)
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_understood_is_refused_with_the_cure() {
        assert_eq!(check("a", 0, 0), Ok(()), "one that does not say");
        assert_eq!(check("a", WIRE, OLDEST), Ok(()));
        assert_eq!(check("a", WIRE + 5, WIRE), Ok(()), "newer, but it understands us");
        let refused = check("member 3", WIRE + 5, WIRE + 1).expect_err("too new");
        assert!(refused.contains("member 3") && refused.contains("install the newer hactl here"), "{refused}");
    }
}

//! Kubernetes quantities (`100m`, `1.5Gi`, `2e3`): exact arithmetic and the canonical form.
//!
//! A value counts nano units in an `i128`; finer ones are rounded away from zero and larger ones capped at 2^63-1, as
//! Kubernetes does. No floating point anywhere.

use std::cmp::Ordering;
use std::ops::{Add, AddAssign, Sub, SubAssign};

const NANO: i128 = 1_000_000_000;
const MILLI: i128 = 1_000_000;
const VALUE_MAX: i128 = i64::MAX as i128 * NANO;

const WRONG_FORMAT: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
const WRONG_SUFFIX: &str = "unable to parse quantity's suffix";
const WRONG_NUMBER: &str = "unable to parse numeric part of quantity";

/// Which family of suffixes a quantity is printed with; it keeps the one it was written with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `Ki`, `Mi`, …
    Binary,
    /// `m`, `k`, `M`, …
    Decimal,
    /// `e3`, `e6`, …
    Exponent,
}

/// One exact amount. Compares by value; prints canonically.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nano: i128,
    format: Format,
}

impl Quantity {
    pub const ZERO: Quantity = Quantity { nano: 0, format: Format::Decimal };

    /// # Errors
    /// The message Kubernetes gives.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) => (false, text),
            None => return Err(WRONG_FORMAT.to_owned()),
        };
        let digits_end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(digits_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(WRONG_FORMAT.to_owned());
        }
        let (format, base, exponent) = suffix_of(suffix)?;
        let magnitude = scale(whole, fraction, base, exponent)?.min(VALUE_MAX);
        Ok(Self { nano: if negative { -magnitude } else { magnitude }, format })
    }

    /// Thousandths, rounded up: how cpu is counted.
    pub fn milli(&self) -> i128 {
        div_up(self.nano, MILLI)
    }

    /// Whole units, rounded up: how bytes and pods are counted.
    pub fn value(&self) -> i128 {
        div_up(self.nano, NANO)
    }

    pub fn from_milli(milli: i128) -> Self {
        Self { nano: milli.saturating_mul(MILLI).clamp(-VALUE_MAX, VALUE_MAX), format: Format::Decimal }
    }

    pub fn from_value(value: i128) -> Self {
        Self { nano: value.saturating_mul(NANO).clamp(-VALUE_MAX, VALUE_MAX), format: Format::Decimal }
    }

    /// An amount of bytes, printed in `Ki`, `Mi`, ….
    pub fn from_bytes(bytes: i128) -> Self {
        Self { format: Format::Binary, ..Self::from_value(bytes) }
    }

    pub fn is_zero(&self) -> bool {
        self.nano == 0
    }

    pub fn is_negative(&self) -> bool {
        self.nano < 0
    }

    /// Whether it is a number of whole units.
    pub fn is_whole(&self) -> bool {
        self.nano % NANO == 0
    }
}

/// The canonical form of a quantity; a malformed one stays as it is.
pub fn canonical(text: &str) -> String {
    Quantity::parse(text).map_or_else(|_| text.to_owned(), |q| q.to_string())
}

/// Thousandths of a quantity in an object; 0 where it is malformed.
pub fn milli(text: &str) -> i64 {
    Quantity::parse(text).map_or(0, |q| i64::try_from(q.milli()).unwrap_or(i64::MAX))
}

/// Whole units of a quantity in an object; 0 where it is malformed.
pub fn value(text: &str) -> i64 {
    Quantity::parse(text).map_or(0, |q| i64::try_from(q.value()).unwrap_or(i64::MAX))
}

fn div_up(n: i128, by: i128) -> i128 {
    let quotient = n / by;
    match n % by {
        0 => quotient,
        rest if rest > 0 => quotient + 1,
        _ => quotient - 1,
    }
}

/// Base and exponent of a suffix.
fn suffix_of(suffix: &str) -> Result<(Format, u32, i32), String> {
    Ok(match suffix {
        "" => (Format::Decimal, 10, 0),
        "n" => (Format::Decimal, 10, -9),
        "u" => (Format::Decimal, 10, -6),
        "m" => (Format::Decimal, 10, -3),
        "k" => (Format::Decimal, 10, 3),
        "M" => (Format::Decimal, 10, 6),
        "G" => (Format::Decimal, 10, 9),
        "T" => (Format::Decimal, 10, 12),
        "P" => (Format::Decimal, 10, 15),
        "E" => (Format::Decimal, 10, 18),
        "Ki" => (Format::Binary, 2, 10),
        "Mi" => (Format::Binary, 2, 20),
        "Gi" => (Format::Binary, 2, 30),
        "Ti" => (Format::Binary, 2, 40),
        "Pi" => (Format::Binary, 2, 50),
        "Ei" => (Format::Binary, 2, 60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E']).ok_or_else(|| {
                let known = suffix.chars().all(|c| "eEinumkKMGTP+-0123456789".contains(c));
                if known { WRONG_SUFFIX } else { WRONG_FORMAT }.to_owned()
            })?;
            let exponent: i32 = exponent.parse().map_err(|_| WRONG_SUFFIX.to_owned())?;
            (Format::Exponent, 10, exponent)
        }
    })
}

/// `whole.fraction × base^exponent` in nano units, rounded up and capped.
fn scale(whole: &str, fraction: &str, base: u32, exponent: i32) -> Result<i128, String> {
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    // Beyond these the value is capped or, in the last digits, rounded up all the same.
    const DIGITS_MAX: usize = 30;
    const FRACTION_MAX: usize = 30;
    if whole.is_empty() && fraction.is_empty() {
        return Ok(0);
    }
    if whole.len() > DIGITS_MAX {
        return Ok(VALUE_MAX);
    }
    let (kept, lost) = fraction.split_at(fraction.len().min(FRACTION_MAX));
    // The value is digits × 10^-kept.len() × base^exponent, where digits may have up to 60 of them: split in two.
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| WRONG_NUMBER.to_owned())? };
    let fraction: i128 = if kept.is_empty() { 0 } else { kept.parse().map_err(|_| WRONG_NUMBER.to_owned())? };
    let whole = times(whole, base, exponent, 0);
    let fraction = times(fraction, base, exponent, kept.len() as u32);
    let (whole, fraction) = match (whole, fraction) {
        (Some(whole), Some(fraction)) => (whole, fraction),
        _ => return Ok(VALUE_MAX),
    };
    let sum = whole.0.saturating_add(fraction.0);
    let inexact = whole.1 || fraction.1 || !lost.is_empty();
    Ok(if inexact { sum.saturating_add(1) } else { sum })
}

/// `n × base^exponent × 10^9 / 10^decimals`, rounded down, and whether anything was lost; `None` when too large.
fn times(n: i128, base: u32, exponent: i32, decimals: u32) -> Option<(i128, bool)> {
    if n == 0 {
        return Some((0, false));
    }
    let mut value = n;
    let mut divide = decimals as i32 - 9;
    if base == 2 {
        // Drop what the division takes anyway before multiplying, or thirty decimals of an exbibyte overflow.
        let mut inexact = false;
        while divide > 0 && value.checked_mul(1i128 << exponent).is_none() {
            inexact |= value % 10 != 0;
            value /= 10;
            divide -= 1;
        }
        value = value.checked_mul(1i128 << exponent)?;
        let (value, lost) = shift10(value, -divide)?;
        return Some((value, lost || inexact));
    }
    divide = divide.saturating_sub(exponent);
    value = value.max(1);
    shift10(value, divide.checked_neg()?)
}

/// `n × 10^by`, rounded down, and whether anything was lost.
fn shift10(n: i128, by: i32) -> Option<(i128, bool)> {
    if by >= 0 {
        return Some((n.checked_mul(10i128.checked_pow(by as u32)?)?, false));
    }
    match 10i128.checked_pow(by.unsigned_abs()) {
        Some(power) => Some((n / power, n % power != 0)),
        None => Some((0, n != 0)),
    }
}

impl std::str::FromStr for Quantity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }
}

impl std::fmt::Display for Quantity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.nano == 0 {
            return f.write_str("0");
        }
        let binary = self.format == Format::Binary && self.is_whole() && self.nano.abs() >= 1024 * NANO;
        if binary {
            let mut mantissa = self.nano / NANO;
            let mut step = 0;
            while mantissa % 1024 == 0 && step < 6 {
                mantissa /= 1024;
                step += 1;
            }
            return write!(f, "{mantissa}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][step]);
        }
        let mut mantissa = self.nano;
        let mut step: usize = 0;
        while mantissa % 1000 == 0 && step < 9 {
            mantissa /= 1000;
            step += 1;
        }
        let exponent = step as i32 * 3 - 9;
        match (self.format, exponent) {
            (_, 0) => write!(f, "{mantissa}"),
            (Format::Exponent, _) => write!(f, "{mantissa}e{exponent}"),
            _ => write!(f, "{mantissa}{}", ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][step]),
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nano.cmp(&other.nano)
    }
}

/// The sum keeps the left side's format, or takes the right one's where the left is zero.
impl Add for Quantity {
    type Output = Quantity;

    fn add(self, other: Quantity) -> Quantity {
        let format = if self.is_zero() { other.format } else { self.format };
        Quantity { nano: (self.nano + other.nano).clamp(-VALUE_MAX, VALUE_MAX), format }
    }
}

impl Sub for Quantity {
    type Output = Quantity;

    fn sub(self, other: Quantity) -> Quantity {
        let format = if self.is_zero() { other.format } else { self.format };
        Quantity { nano: (self.nano - other.nano).clamp(-VALUE_MAX, VALUE_MAX), format }
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Quantity) {
        *self = *self + other;
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Quantity) {
        *self = *self - other;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn canonical_forms() {
        for (text, expected) in [
            ("0", "0"),
            ("0m", "0"),
            ("-0", "0"),
            ("1", "1"),
            ("1.0", "1"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("5.", "5"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1.5Gi", "1536Mi"),
            ("1024Mi", "1Gi"),
            ("1024", "1024"),
            ("1Ki", "1Ki"),
            ("512", "512"),
            ("0.5Ki", "512"),
            ("0.1Ki", "102400m"),
            ("1e3", "1e3"),
            ("12e2", "1200"),
            ("1E6", "1e6"),
            ("1E", "1E"),
            ("100k", "100k"),
            ("1000k", "1M"),
            ("0.1m", "100u"),
            ("0.1n", "1n"),
            ("-1.5", "-1500m"),
            ("+2", "2"),
            ("1e-3", "1e-3"),
            ("16Ei", "9223372036854775807"),
            ("1e400", "9223372036854775807"),
            ("1e-400", "1e-9"),
            ("0.000000000000000000000000000000001", "1n"),
        ] {
            let printed = Quantity::parse(text).map(|q| q.to_string());
            assert_eq!(printed.as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn malformed() {
        for text in ["", "x", "1.2.3", "1x", "1Kib", "1 Gi", "-", ".", "1e", "1e3.5", "1mm", "１"] {
            Quantity::parse(text).expect_err(text);
        }
    }

    #[test]
    fn rounds_up() {
        let q = Quantity::parse("1500u").unwrap_or(Quantity::ZERO);
        assert_eq!((q.milli(), q.value()), (2, 1));
        assert_eq!(milli("0.25"), 250);
        assert_eq!(value("128Mi"), 128 << 20);
    }

    proptest! {
        #[test]
        fn printing_keeps_the_value(whole in 0u64..1 << 40, fraction in 0u32..1000, suffix in 0usize..17) {
            let suffixes = ["", "n", "u", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti", "e3", "E3", "e-2", "P", "e0"];
            let text = format!("{whole}.{fraction:03}{}", suffixes[suffix]);
            let once = Quantity::parse(&text).map_err(TestCaseError::fail)?;
            let twice = Quantity::parse(&once.to_string()).map_err(TestCaseError::fail)?;
            prop_assert_eq!(once, twice);
            prop_assert_eq!(once.to_string(), twice.to_string());
        }

        #[test]
        fn sums_are_exact(a in 0i64..1 << 40, b in 0i64..1 << 40) {
            let sum = Quantity::from_milli(a.into()) + Quantity::from_milli(b.into());
            prop_assert_eq!(sum.milli(), i128::from(a + b));
            prop_assert_eq!((sum - Quantity::from_milli(b.into())).milli(), i128::from(a));
        }

        #[test]
        fn never_panics(text in "[-+.0-9eEinumkKMGTP]{0,40}") {
            let _ = Quantity::parse(&text).map(|q| q.to_string());
        }
    }
}

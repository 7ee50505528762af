//! The schedule of a CronJob: cron's five fields (minute, hour, day of month, month, day of week), a name like `@daily`,
//! or `@every 90m`. Understands what Kubernetes understands, and refuses in its words.
//!
//! Times are civil: which zone a schedule is meant in, and what happens when clocks change, is the caller's to say.

use jiff::civil::{DateTime, Time};
use jiff::{SignedDuration, ToSpan};

/// A day that comes never within so many days does not come: the 29th of February may be eight years away, a 30th of
/// February is nowhere.
const SEARCHED_DAYS_MAX: usize = 9 * 366;

/// When something is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    Fields(Fields),
    Every(SignedDuration),
}

/// The values each field accepts, one bit per value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether days of the month or of the week are left open: then both must fit, else one of them.
    open: bool,
}

struct Range {
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const MINUTES: Range = Range { min: 0, max: 59, names: &[] };
const HOURS: Range = Range { min: 0, max: 23, names: &[] };
const DAYS: Range = Range { min: 1, max: 31, names: &[] };
const MONTHS: Range = Range {
    min: 1,
    max: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const WEEKDAYS: Range = Range { min: 0, max: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

impl Schedule {
    /// # Errors
    /// The message says which field means nothing.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("empty spec string".to_owned());
        }
        if text.starts_with('@') {
            return descriptor(text);
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields.as_slice() else {
            return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
        };
        let (minutes, _) = field(minutes, &MINUTES)?;
        let (hours, _) = field(hours, &HOURS)?;
        let (days, any_day) = field(days, &DAYS)?;
        let (months, _) = field(months, &MONTHS)?;
        let (weekdays, any_weekday) = field(weekdays, &WEEKDAYS)?;
        Ok(Self::Fields(Fields { minutes, hours, days, months, weekdays, open: any_day || any_weekday }))
    }

    /// The first time after `after`; none where the schedule names no day that exists.
    pub fn next(&self, after: DateTime) -> Option<DateTime> {
        match self {
            Self::Every(period) => after.checked_add(*period).ok()?.with().subsec_nanosecond(0).build().ok(),
            Self::Fields(fields) => fields.next(after),
        }
    }
}

impl Fields {
    fn next(&self, after: DateTime) -> Option<DateTime> {
        let start = after.with().second(0).subsec_nanosecond(0).build().ok()?.checked_add(1.minute()).ok()?;
        let mut date = start.date();
        let mut from = start.time();
        for _ in 0..SEARCHED_DAYS_MAX {
            if self.has_day(date)
                && let Some(time) = self.time(from)
            {
                return Some(date.to_datetime(time));
            }
            date = date.tomorrow().ok()?;
            from = Time::midnight();
        }
        None
    }

    fn has_day(&self, date: jiff::civil::Date) -> bool {
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        has(self.months, date.month()) && if self.open { day && weekday } else { day || weekday }
    }

    fn time(&self, from: Time) -> Option<Time> {
        (from.hour()..24).filter(|hour| has(self.hours, *hour)).find_map(|hour| {
            let first = if hour == from.hour() { from.minute() } else { 0 };
            let minute = (first..60).find(|minute| has(self.minutes, *minute))?;
            Time::new(hour, minute, 0, 0).ok()
        })
    }
}

fn has(bits: u64, value: i8) -> bool {
    u32::try_from(value).is_ok_and(|value| bits & (1 << value) != 0)
}

fn descriptor(text: &str) -> Result<Schedule, String> {
    let fields = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ => {
            let Some(period) = text.strip_prefix("@every ") else {
                return Err(format!("unrecognized descriptor: {text}"));
            };
            return every(period).ok_or_else(|| format!("failed to parse duration {text}"));
        }
    };
    Schedule::parse(fields)
}

/// `1h30m`, in whole seconds and at least one.
fn every(period: &str) -> Option<Schedule> {
    let plain = period.bytes().all(|c| c.is_ascii_digit() || b".hmsun".contains(&c));
    let period: SignedDuration = period.parse().ok().filter(|_| plain)?;
    Some(Schedule::Every(SignedDuration::from_secs(period.as_secs().max(1))))
}

/// The bits of one field, and whether it leaves everything open.
fn field(text: &str, range: &Range) -> Result<(u64, bool), String> {
    let (mut bits, mut any) = (0, false);
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (more, all) = steps(part, range)?;
        bits |= more;
        any |= all;
    }
    Ok((bits, any))
}

/// `*`, `5`, `1-5`, and each of them with `/2`.
fn steps(part: &str, range: &Range) -> Result<(u64, bool), String> {
    let mut pieces = part.split('/');
    let values = pieces.next().unwrap_or("");
    let step = pieces.next();
    if pieces.next().is_some() {
        return Err(format!("too many slashes: {part}"));
    }
    let mut ends = values.split('-');
    let (low, high) = (ends.next().unwrap_or(""), ends.next());
    if ends.next().is_some() {
        return Err(format!("too many hyphens: {part}"));
    }
    let open = matches!(low, "*" | "?");
    let start = if open { range.min } else { value(low, range)? };
    let end = match high {
        _ if open => range.max,
        Some(high) => value(high, range)?,
        None if step.is_some() => range.max,
        None => start,
    };
    let step = step.map_or(Ok(1), number)?;
    if start < range.min {
        return Err(format!("beginning of range ({start}) below minimum ({}): {part}", range.min));
    }
    if end > range.max {
        return Err(format!("end of range ({end}) above maximum ({}): {part}", range.max));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {part}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {part}"));
    }
    let bits = (start..=end).step_by(step as usize).fold(0, |bits, value| bits | (1u64 << value));
    Ok((bits, open && step == 1))
}

fn value(text: &str, range: &Range) -> Result<u32, String> {
    let lower = text.to_ascii_lowercase();
    match range.names.iter().zip(range.min..).find(|(name, _)| **name == lower) {
        Some((_, value)) => Ok(value),
        None => number(text),
    }
}

fn number(text: &str) -> Result<u32, String> {
    if text.is_empty() || !text.bytes().all(|c| c.is_ascii_digit()) {
        return Err(format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"));
    }
    text.parse()
        .map_err(|_| format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: value out of range"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> DateTime {
        text.parse().expect("a time")
    }

    #[test]
    fn what_comes_next() {
        for (schedule, after, expected) in [
            ("* * * * *", "2026-01-31T23:59:30", "2026-02-01T00:00:00"),
            ("*/15 * * * *", "2026-01-01T00:15:00", "2026-01-01T00:30:00"),
            ("5/20 * * * *", "2026-01-01T00:26:00", "2026-01-01T00:45:00"),
            ("0 8-10,20 * * *", "2026-01-01T10:00:00", "2026-01-01T20:00:00"),
            ("30 2 1 * *", "2026-01-01T02:30:00", "2026-02-01T02:30:00"),
            ("0 0 * * mon-FRI", "2026-01-02T00:00:00", "2026-01-05T00:00:00"),
            // A day of the month and one of the week: either.
            ("0 0 13 * fri", "2026-01-09T00:00:00", "2026-01-13T00:00:00"),
            ("0 0 13 * fri", "2026-01-13T00:00:00", "2026-01-16T00:00:00"),
            // Every second day of the month says something of days, `*` does not.
            ("0 0 */2 * ?", "2026-01-01T00:00:00", "2026-01-03T00:00:00"),
            ("0 0 29 2 *", "2026-01-01T00:00:00", "2028-02-29T00:00:00"),
            ("@yearly", "2026-01-01T00:00:00", "2027-01-01T00:00:00"),
            ("@weekly", "2026-01-01T00:00:00", "2026-01-04T00:00:00"),
            ("@hourly", "2026-01-01T00:59:59", "2026-01-01T01:00:00"),
            ("@every 1h30m", "2026-01-01T00:00:00.5", "2026-01-01T01:30:00"),
        ] {
            let parsed = Schedule::parse(schedule).expect(schedule);
            assert_eq!(parsed.next(time(after)), Some(time(expected)), "{schedule} after {after}");
        }
        let never = Schedule::parse("0 0 30 2 *").expect("the syntax is good");
        assert_eq!(never.next(time("2026-01-01T00:00:00")), None);
    }

    #[test]
    fn what_means_nothing() {
        for (schedule, expected) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("* * * * 7", "end of range (7) above maximum (6): 7"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("@sometimes", "unrecognized descriptor: @sometimes"),
            ("@every day", "failed to parse duration @every day"),
            ("@every ", "failed to parse duration @every "),
            ("", "empty spec string"),
        ] {
            assert_eq!(Schedule::parse(schedule), Err(expected.to_owned()), "{schedule}");
        }
    }
}

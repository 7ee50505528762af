//! Messages that are one scalar in JSON: times, quantities, durations, raw JSON.

use serde_json::Value;

use super::decode::{Error, Reader, Wire};

/// The JSON of a message that is a scalar there. The outer `None`: an ordinary message. The inner one: unset.
pub fn scalar(message: &str, bytes: &[u8], depth: u32) -> Option<Result<Option<Value>, Error>> {
    Some(match message {
        "meta/v1.Time" => time(bytes, false),
        "meta/v1.MicroTime" => time(bytes, true),
        "meta/v1.Duration" => numbers(bytes).map(|n| Some(Value::String(duration(n[0])))),
        "resource.Quantity" => string(bytes, 1).map(|s| Some(Value::String(if s.is_empty() { "0".into() } else { s }))),
        "intstr.IntOrString" => int_or_string(bytes),
        "meta/v1.FieldsV1" | "apiextensions/v1.Json" => raw(bytes).and_then(|raw| json(&raw)),
        "runtime.RawExtension" => raw(bytes).and_then(|raw| {
            if raw.starts_with(super::MAGIC) {
                super::decode::envelope(&raw, depth).map(|value| Some(value.object))
            } else {
                json(&raw)
            }
        }),
        _ => return None,
    })
}

fn time(bytes: &[u8], micro: bool) -> Result<Option<Value>, Error> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let numbers = numbers(bytes)?;
    let nanos = i32::try_from(numbers[1]).map_err(|_| Error::malformed("a time's nanoseconds are out of range"))?;
    let time = jiff::Timestamp::new(numbers[0], nanos).map_err(|_| Error::malformed("a time is out of range"))?;
    Ok(Some(Value::String(if micro { format!("{time:.6}") } else { format!("{time:.0}") })))
}

/// The varints tagged 1 and 2.
fn numbers(bytes: &[u8]) -> Result<[i64; 2], Error> {
    let mut out = [0; 2];
    let mut reader = Reader::new(bytes);
    while let Some((tag, wire)) = reader.next()? {
        if let (1 | 2, Wire::Number(number)) = (tag, wire) {
            out[tag as usize - 1] = number as i64;
        }
    }
    Ok(out)
}

fn bytes_of(bytes: &[u8], wanted: u32) -> Result<&[u8], Error> {
    let mut out: &[u8] = &[];
    let mut reader = Reader::new(bytes);
    while let Some((tag, wire)) = reader.next()? {
        if let (true, Wire::Bytes(found)) = (tag == wanted, wire) {
            out = found;
        }
    }
    Ok(out)
}

fn string(bytes: &[u8], tag: u32) -> Result<String, Error> {
    let found = bytes_of(bytes, tag)?;
    String::from_utf8(found.to_vec()).map_err(|_| Error::malformed("a string is not UTF-8"))
}

fn raw(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    bytes_of(bytes, 1).map(<[u8]>::to_vec)
}

fn json(raw: &[u8]) -> Result<Option<Value>, Error> {
    if raw.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(raw).map(Some).map_err(|_| Error::malformed("raw JSON inside the message is malformed"))
}

fn int_or_string(bytes: &[u8]) -> Result<Option<Value>, Error> {
    let (mut is_string, mut number) = (false, 0);
    let mut reader = Reader::new(bytes);
    while let Some((tag, wire)) = reader.next()? {
        match (tag, wire) {
            (1, Wire::Number(kind)) => is_string = kind == 1,
            (2, Wire::Number(value)) => number = value as i64 as i32,
            _ => {}
        }
    }
    if is_string { string(bytes, 3).map(|s| Some(Value::String(s))) } else { Ok(Some(number.into())) }
}

/// As Go prints one: `1h2m3.5s`.
fn duration(nanos: i64) -> String {
    let total = nanos.unsigned_abs();
    let sign = if nanos < 0 { "-" } else { "" };
    if total < 1_000_000_000 {
        let (value, unit) = match total {
            0 => return "0s".into(),
            1..1_000 => (total as f64, "ns"),
            1_000..1_000_000 => (total as f64 / 1e3, "µs"),
            _ => (total as f64 / 1e6, "ms"),
        };
        return format!("{sign}{value}{unit}");
    }
    let (hours, minutes) = (total / 3_600_000_000_000, total / 60_000_000_000 % 60);
    let seconds = (total % 60_000_000_000) as f64 / 1e9;
    match (hours, minutes) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, _) => format!("{sign}{minutes}m{seconds}s"),
        _ => format!("{sign}{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_print_as_in_go() {
        for (nanos, want) in [
            (0, "0s"),
            (1_500_000, "1.5ms"),
            (30_000_000_000, "30s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
            (-2_000_000_000, "-2s"),
        ] {
            assert_eq!(duration(nanos), want);
        }
    }
}

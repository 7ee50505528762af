//! How values of settings are written: durations, sizes, cores, addresses. Parsing only; what a value means is the table's.

use std::net::SocketAddr;
use std::time::Duration;

/// The form of a setting's value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    Text,
    OneOf(&'static [&'static str]),
    /// `40ms`, `5s`, `5m`, `1h`.
    Duration,
    /// `64MiB`, `1.5GiB`, `10MB`.
    Size,
    Count,
    /// `2`, `1.5`, `500m`.
    Cpu,
    /// `0.0.0.0:6443`.
    Address,
    /// `10.244.0.0/16`.
    Cidr,
}

impl Unit {
    /// The placeholder in `--help`.
    pub fn word(self) -> &'static str {
        match self {
            Unit::Text => "TEXT",
            Unit::OneOf(_) => "WORD",
            Unit::Duration => "DURATION",
            Unit::Size => "SIZE",
            Unit::Count => "NUMBER",
            Unit::Cpu => "CORES",
            Unit::Address => "ADDRESS",
            Unit::Cidr => "CIDR",
        }
    }

    pub fn example(self) -> &'static str {
        match self {
            Unit::Text => "info",
            Unit::OneOf(words) => words[0],
            Unit::Duration => "5s",
            Unit::Size => "64MiB",
            Unit::Count => "110",
            Unit::Cpu => "1.5",
            Unit::Address => "0.0.0.0:6443",
            Unit::Cidr => "10.244.0.0/16",
        }
    }

    pub fn check(self, text: &str) -> Result<(), String> {
        match self {
            Unit::Text if text.is_empty() => Err("it is empty".to_owned()),
            Unit::Text => Ok(()),
            Unit::OneOf(words) if words.contains(&text) => Ok(()),
            Unit::OneOf(words) => Err(format!("it must be one of {}", words.join(", "))),
            Unit::Duration => duration(text).map(drop),
            Unit::Size => size(text).map(drop),
            Unit::Count => text.parse::<u64>().map(drop).map_err(|_| "it must be a whole number".to_owned()),
            Unit::Cpu => cpu(text).map(drop),
            Unit::Address => {
                text.parse::<SocketAddr>().map(drop).map_err(|_| "it must be an address and a port".to_owned())
            }
            Unit::Cidr => cidr(text),
        }
    }
}

/// Splits `1.5GiB` into 1.5 and `GiB`.
fn number(text: &str) -> Result<(f64, &str), String> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let value = text[..end].parse::<f64>().map_err(|_| "it must begin with a number".to_owned())?;
    Ok((value, text[end..].trim()))
}

pub fn duration(text: &str) -> Result<Duration, String> {
    let (value, unit) = number(text)?;
    let seconds = match unit {
        "ms" => value / 1000.0,
        "s" => value,
        "m" => value * 60.0,
        "h" => value * 3600.0,
        "d" => value * 86_400.0,
        "" => return Err("a duration needs a unit: ms, s, m, h or d".to_owned()),
        other => return Err(format!("`{other}` is no unit of time (ms, s, m, h, d)")),
    };
    let duration = Duration::try_from_secs_f64(seconds).map_err(|_| "it is too long".to_owned())?;
    if duration.is_zero() {
        return Err("it must be above zero".to_owned());
    }
    Ok(duration)
}

pub fn size(text: &str) -> Result<u64, String> {
    let (value, unit) = number(text)?;
    let factor = match unit {
        "B" => 1.0,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        "KiB" | "Ki" => 1024.0,
        "MiB" | "Mi" => 1024.0 * 1024.0,
        "GiB" | "Gi" => 1024.0 * 1024.0 * 1024.0,
        "TiB" | "Ti" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        "" => return Err("a size needs a unit: MiB, GiB, MB, GB".to_owned()),
        other => return Err(format!("`{other}` is no unit of size (MiB, GiB, MB, GB)")),
    };
    let bytes = value * factor;
    if !(1.0..9e18).contains(&bytes) {
        return Err("it is out of range".to_owned());
    }
    Ok(bytes as u64)
}

/// Thousandths of a core.
pub fn cpu(text: &str) -> Result<u64, String> {
    let (value, unit) = number(text)?;
    let milli = match unit {
        "" => value * 1000.0,
        "m" => value,
        other => return Err(format!("`{other}` is no unit of cores (none, or m for thousandths)")),
    };
    if !(1.0..1e9).contains(&milli) {
        return Err("it is out of range".to_owned());
    }
    Ok(milli as u64)
}

fn cidr(text: &str) -> Result<(), String> {
    let wrong = || "it must be an IPv4 range such as 10.244.0.0/16".to_owned();
    let (address, length) = text.split_once('/').ok_or_else(wrong)?;
    let address: std::net::Ipv4Addr = address.parse().map_err(|_| wrong())?;
    let length: u32 = length.parse().map_err(|_| wrong())?;
    if !(8..=28).contains(&length) {
        return Err("its length must be between /8 and /28".to_owned());
    }
    if u32::from(address) << length != 0 {
        return Err(format!("{address} has bits set beyond /{length}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_with_units() {
        assert_eq!(duration("40ms"), Ok(Duration::from_millis(40)));
        assert_eq!(duration("1.5h"), Ok(Duration::from_secs(5400)));
        assert_eq!(size("1.5MiB"), Ok(1_572_864));
        assert_eq!(size("2GB"), Ok(2_000_000_000));
        assert_eq!(cpu("500m"), Ok(500));
        assert_eq!(cpu("1.5"), Ok(1500));
    }

    #[test]
    fn refusals() {
        for (unit, text) in [
            (Unit::Duration, "5"),
            (Unit::Duration, "0s"),
            (Unit::Duration, "5 parsecs"),
            (Unit::Size, "64"),
            (Unit::Size, "-1MiB"),
            (Unit::Cpu, "0"),
            (Unit::Cidr, "10.244.0.1/16"),
            (Unit::Cidr, "10.244.0.0"),
            (Unit::Address, "6443"),
            (Unit::Count, "1.5"),
        ] {
            assert!(unit.check(text).is_err(), "{text}");
        }
    }
}

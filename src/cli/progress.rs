//! What a user sees while something takes long: one line on stderr, with the seconds gone by. Results go to stdout, never here.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often a line is repeated where stderr is a file and no line can be rewritten.
const REPEAT_EVERY: Duration = Duration::from_secs(10);

/// One long wait. Dropped without `done`, it ends its line so that an error begins on a fresh one.
pub struct Progress {
    what: String,
    since: Instant,
    shown: Option<Instant>,
    last: String,
    terminal: bool,
    ended: bool,
}

impl Progress {
    pub fn start(what: impl Into<String>) -> Self {
        let mut progress = Self {
            what: what.into(),
            since: Instant::now(),
            shown: None,
            last: String::new(),
            terminal: std::io::stderr().is_terminal(),
            ended: false,
        };
        progress.detail("");
        progress
    }

    /// Shows where the wait stands; cheap enough to call in every turn of a loop.
    pub fn detail(&mut self, detail: &str) {
        let due = self.shown.is_none_or(|at| at.elapsed() >= REPEAT_EVERY);
        if !self.terminal && !due && detail == self.last {
            return;
        }
        self.last = detail.to_owned();
        self.shown = Some(Instant::now());
        let seconds = self.since.elapsed().as_secs();
        let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
        let mut err = std::io::stderr();
        // Progress that cannot be shown is no reason to stop.
        let _ = if self.terminal {
            write!(err, "\r\x1b[K{}{detail} ({seconds} s)", self.what).and_then(|()| err.flush())
        } else {
            writeln!(err, "{}{detail} ({seconds} s)", self.what)
        };
    }

    pub fn done(mut self, result: &str) {
        self.ended = true;
        let seconds = self.since.elapsed().as_secs_f32();
        let lead = if self.terminal { "\r\x1b[K" } else { "" };
        let _ = writeln!(std::io::stderr(), "{lead}{}: {result} ({seconds:.1} s)", self.what);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if !self.ended && self.terminal {
            let _ = writeln!(std::io::stderr());
        }
    }
}

/// A number and what it counts, as a reader says it: `1 master`, `3 masters`.
pub fn count(number: impl std::fmt::Display, what: &str) -> String {
    let number = number.to_string();
    let plural = if number == "1" { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// One line about something that has happened.
pub fn note(line: impl AsRef<str>) {
    let _ = writeln!(std::io::stderr(), "{}", line.as_ref());
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn one_is_no_plural() {
        let said = [0, 1, 2].map(|number| count(number, "master"));
        assert_eq!(said, ["0 masters", "1 master", "2 masters"]);
    }
}

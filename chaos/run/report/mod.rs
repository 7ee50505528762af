//! What a run was, in figures: for a reader who was not there (HTML), for programs (JSON), and every operation (a line of JSON
//! each).

mod chart;
mod html;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::history::{Fault, Micros, Operation, Outcome, Record, Seat};
use super::laws::{self, Verdict};

/// A longer time without an accepted write counts as an outage.
const OUTAGE: Micros = 500_000;
/// The parts of time that the curves are made of.
const STEP: Micros = 1_000_000;

/// What the run was.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Title {
    pub scenario: String,
    pub about: String,
    pub target: String,
    pub seed: u64,
    pub masters: Vec<String>,
    pub nodes: usize,
    /// With what they do.
    pub nemeses: Vec<(String, String)>,
    pub workloads: Vec<(String, String)>,
    /// The command that does it again.
    pub repeat: String,
}

/// One second.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Moment {
    pub answered: usize,
    pub refused: usize,
    pub failed: usize,
    pub unknown: usize,
    /// Of answered calls, in microseconds; 0: there were none.
    pub p50: Micros,
    pub p99: Micros,
}

/// How long no write was accepted around a fault that hit the leader.
#[derive(Clone, Debug, Serialize)]
pub struct Gap {
    pub nemesis: &'static str,
    pub what: String,
    pub at: Micros,
    /// Between two accepted writes; none: there was no other one.
    pub gap: Option<Micros>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    pub operations: usize,
    pub acknowledged_writes: usize,
    pub answered_reads: usize,
    pub refused: usize,
    pub failed: usize,
    pub unknown: usize,
    pub writes_per_second: f64,
    pub p50: Micros,
    pub p99: Micros,
    /// The longest time without an accepted write while faults were possible.
    pub longest_gap: Micros,
    /// How much of the time with faults was no part of an outage, in percent.
    pub available: f64,
    pub leader_changes: usize,
    pub moves_of_followers: usize,
}

#[derive(Debug, Serialize)]
pub struct Report {
    pub title: Title,
    pub verdicts: Vec<Verdict>,
    pub figures: Figures,
    pub gaps: Vec<Gap>,
    pub faults: Vec<Fault>,
    pub seats: Vec<Seat>,
    pub moments: Vec<Moment>,
    pub faults_from: Micros,
    pub healed: Micros,
    pub ended: Micros,
    #[serde(skip)]
    operations: Vec<Operation>,
    /// All else that was seen: followers, pods, what masters and engines showed at rest.
    #[serde(skip)]
    record: Record,
}

/// The smallest value that at least this part of all is not above.
pub fn quantile(sorted: &[Micros], part: f64) -> Micros {
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// Ends of acknowledged writes, in order.
fn accepted(operations: &[Operation]) -> Vec<Micros> {
    let mut ends: Vec<Micros> =
        operations.iter().filter(|one| one.is_acknowledged_write()).filter_map(|one| one.ended).collect();
    ends.sort_unstable();
    ends
}

/// A gap that a fault made begins within this.
const BEGINS_WITHIN: Micros = 2_000_000;

/// The longest time between two accepted writes that follow each other, of those that a fault at this time may have made. None:
/// no write was accepted any more.
pub fn gap_at(operations: &[Operation], at: Micros) -> Option<Micros> {
    let ends = accepted(operations);
    let near = ends.windows(2).filter(|pair| pair[1] > at && pair[0] < at + BEGINS_WITHIN);
    near.map(|pair| pair[1] - pair[0]).max()
}

fn moments(record: &Record) -> Vec<Moment> {
    let count = usize::try_from(record.ended / STEP + 1).unwrap_or(1);
    let mut moments = vec![Moment::default(); count];
    let mut times: Vec<Vec<Micros>> = vec![Vec::new(); count];
    for one in &record.operations {
        let Some(ended) = one.ended else { continue };
        let at = usize::try_from(ended / STEP).unwrap_or(usize::MAX);
        let Some(moment) = moments.get_mut(at) else { continue };
        match &one.outcome {
            Outcome::Refused(_) => moment.refused += 1,
            Outcome::Failed(_) => moment.failed += 1,
            Outcome::Unknown(_) => moment.unknown += 1,
            _ => {
                moment.answered += 1;
                times[at].push(ended - one.begun);
            }
        }
    }
    for (moment, times) in moments.iter_mut().zip(&mut times) {
        times.sort_unstable();
        (moment.p50, moment.p99) = (quantile(times, 0.5), quantile(times, 0.99));
    }
    moments
}

/// When another master led than before.
pub fn leader_changes(seats: &[Seat]) -> Vec<Micros> {
    let mut last: Option<(&str, u64)> = None;
    let mut changes = Vec::new();
    for seat in seats.iter().filter(|seat| seat.leads) {
        if last.is_some_and(|(master, term)| term < seat.term && master != seat.master) {
            changes.push(seat.at);
        }
        if last.is_none_or(|(_, term)| term < seat.term) {
            last = Some((&seat.master, seat.term));
        }
    }
    changes
}

fn figures(record: &Record) -> Figures {
    let operations = &record.operations;
    let ends = accepted(operations);
    let count = |check: &dyn Fn(&Operation) -> bool| operations.iter().filter(|one| check(one)).count();
    let mut times: Vec<Micros> =
        operations.iter().filter(|one| one.outcome.is_ok()).filter_map(|one| Some(one.ended? - one.begun)).collect();
    times.sort_unstable();
    let (from, to) = (record.faults_from, record.healed.max(record.faults_from));
    let inside = ends.iter().copied().filter(|end| (from..to).contains(end));
    let edges: Vec<Micros> = std::iter::once(from).chain(inside).chain(std::iter::once(to)).collect();
    let gaps: Vec<Micros> = edges.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let out: Micros = gaps.iter().filter(|gap| **gap > OUTAGE).sum();
    let time = (to - from).max(1) as f64;
    Figures {
        operations: operations.len(),
        acknowledged_writes: ends.len(),
        answered_reads: count(&|one| !one.call.is_write() && one.outcome.is_ok()),
        refused: count(&|one| matches!(one.outcome, Outcome::Refused(_))),
        failed: count(&|one| matches!(one.outcome, Outcome::Failed(_))),
        unknown: count(&Operation::is_unknown),
        writes_per_second: ends.len() as f64 / (record.ended.max(1) as f64 / 1e6),
        p50: quantile(&times, 0.5),
        p99: quantile(&times, 0.99),
        longest_gap: gaps.into_iter().max().unwrap_or_default(),
        available: 100.0 * (1.0 - out as f64 / time),
        leader_changes: leader_changes(&record.seats).len(),
        moves_of_followers: record.followers.values().map(|one| one.moves).sum(),
    }
}

/// For people: `730 ms`, `1.2 s`.
pub fn time(micros: Micros) -> String {
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..10_000 => format!("{:.1} ms", micros as f64 / 1e3),
        10_000..1_000_000 => format!("{} ms", micros / 1_000),
        _ => format!("{:.1} s", micros as f64 / 1e6),
    }
}

impl Report {
    pub fn of(title: Title, mut record: Record) -> Self {
        let verdicts = laws::judge(&record);
        let hits = record.faults.iter().filter(|fault| fault.leader);
        let gaps = hits
            .map(|fault| Gap {
                nemesis: fault.nemesis,
                what: fault.what.clone(),
                at: fault.begun,
                gap: gap_at(&record.operations, fault.begun),
            })
            .collect();
        Self {
            title,
            verdicts,
            figures: figures(&record),
            gaps,
            moments: moments(&record),
            faults: record.faults.clone(),
            seats: record.seats.clone(),
            faults_from: record.faults_from,
            healed: record.healed,
            ended: record.ended,
            operations: std::mem::take(&mut record.operations),
            record,
        }
    }

    pub fn holds(&self) -> bool {
        self.verdicts.iter().all(Verdict::holds)
    }

    pub fn is_broken(&self) -> bool {
        self.verdicts.iter().any(Verdict::is_broken)
    }

    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, directory: &Path) -> Result<()> {
        let write = |name: &str, text: &[u8]| {
            let path = directory.join(name);
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        write("report.json", &serde_json::to_vec_pretty(self)?)?;
        write("report.html", html::page(self).as_bytes())?;
        write("record.json", &serde_json::to_vec(&self.record)?)?;
        let path = directory.join("history.jsonl");
        let mut history = std::io::BufWriter::new(std::fs::File::create(&path)?);
        for one in &self.operations {
            serde_json::to_writer(&mut history, one)?;
            history.write_all(b"\n")?;
        }
        history.flush().with_context(|| format!("cannot write {}", path.display()))
    }

    /// For a terminal.
    pub fn summary(&self) -> String {
        let figures = &self.figures;
        let mut text = String::new();
        for verdict in &self.verdicts {
            let word = if verdict.is_broken() {
                "BROKEN"
            } else if !verdict.holds() {
                "UNKNOWN"
            } else if verdict.checked == 0 {
                "-"
            } else {
                "holds"
            };
            let _ = writeln!(text, "{word:<7} {} ({} {})", verdict.law, verdict.checked, verdict.unit);
            for what in verdict.broken.iter().chain(&verdict.unknown) {
                let _ = writeln!(text, "        {what}");
            }
        }
        let _ = writeln!(
            text,
            "{} faults; {} calls, {} writes acknowledged, {} refused, {} failed, {} unknown; p50 {}, p99 {}",
            self.faults.len(),
            figures.operations,
            figures.acknowledged_writes,
            figures.refused,
            figures.failed,
            figures.unknown,
            time(figures.p50),
            time(figures.p99)
        );
        let _ = writeln!(
            text,
            "available {:.2} % of the time with faults; longest without an accepted write {}; {} changes of leader",
            figures.available,
            time(figures.longest_gap),
            figures.leader_changes
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::history::Call;

    fn write(begun: Micros, ended: Micros, outcome: Outcome) -> Operation {
        Operation {
            workload: "set",
            client: "c".into(),
            on: "m".into(),
            object: "o".into(),
            call: Call::Create("x".into()),
            begun,
            ended: Some(ended),
            outcome,
        }
    }

    fn record() -> Record {
        let done = || Outcome::Done(1);
        let operations = vec![
            write(0, 1_000, done()),
            // Under way when the fault struck: its answer came after.
            write(900_000, 1_100_000, done()),
            write(1_050_000, 1_200_000, Outcome::Failed("no".into())),
            write(1_300_000, 2_100_000, done()),
            write(2_200_000, 2_300_000, Outcome::Unknown("lost".into())),
        ];
        Record { operations, faults_from: 500_000, healed: 2_500_000, ended: 3_000_000, ..Record::default() }
    }

    #[test]
    fn a_gap_runs_from_one_accepted_write_to_the_next() {
        let mut operations = record().operations;
        assert_eq!(gap_at(&operations, 1_100_000), Some(1_000_000));
        assert_eq!(gap_at(&operations, 2_150_000), None);
        // One that was accepted just before the fault took effect hides nothing, and a later gap is another fault's.
        operations.push(write(1_105_000, 1_110_000, Outcome::Done(1)));
        for ended in [2_600_000, 3_200_000, 9_100_000] {
            operations.push(write(ended - 10_000, ended, Outcome::Done(1)));
        }
        assert_eq!(gap_at(&operations, 1_100_000), Some(990_000));
    }

    #[test]
    fn figures_and_moments() {
        let record = record();
        let figures = figures(&record);
        assert_eq!((figures.acknowledged_writes, figures.failed, figures.unknown), (3, 1, 1));
        assert_eq!(figures.longest_gap, 1_000_000);
        // 0.5 to 1.1 s and 1.1 to 2.1 s were outages, 0.4 s was not.
        assert!((figures.available - 20.0).abs() < 0.01, "{}", figures.available);
        let moments = moments(&record);
        assert_eq!(moments.iter().map(|moment| moment.answered).collect::<Vec<_>>(), [1, 1, 1, 0]);
        assert_eq!((moments[1].failed, moments[2].unknown, moments[2].p50), (1, 1, 800_000));
    }

    #[test]
    fn changes_of_leader_are_counted_by_term() {
        let seat = |master: &str, term| Seat { at: 0, master: master.into(), answers: true, leads: true, term };
        assert_eq!(
            leader_changes(&[seat("a", 1), seat("a", 1), seat("b", 2), seat("a", 1), seat("b", 3), seat("a", 4)]).len(),
            2
        );
    }

    #[test]
    fn what_could_not_be_judged_is_neither_good_nor_bad() {
        let crowd = (0..200).map(|number| Operation {
            workload: "registers",
            object: "r".into(),
            call: Call::Write(number.to_string()),
            ..write(0, 1_000, Outcome::Done(number))
        });
        let report = Report::of(Title::default(), Record { operations: crowd.collect(), ..record() });
        assert!(!report.holds() && !report.is_broken());
        assert!(report.summary().contains("UNKNOWN registers are linearizable"), "{}", report.summary());
        let page = html::page(&report);
        assert!(page.contains("? unknown") && page.contains("given up") && !page.contains("✗"), "{page}");
        let json = serde_json::to_value(&report).expect("JSON");
        assert_eq!(json["verdicts"][0]["unknown"].as_array().map(Vec::len), Some(1));
    }

    #[test]
    fn a_report_is_written_whole() {
        let dir = tempfile::tempdir().expect("dir");
        let report = Report::of(Title { scenario: "s<1>".into(), ..Title::default() }, record());
        report.write(dir.path()).expect("written");
        let page = std::fs::read_to_string(dir.path().join("report.html")).expect("page");
        assert!(page.contains("s&lt;1&gt;") && !page.contains("s<1>"), "words are escaped");
        assert!(
            !page.contains("http://") && !page.contains("https://") && !page.contains("src="),
            "nothing is fetched"
        );
        let json = std::fs::read(dir.path().join("report.json")).expect("json");
        let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
        assert_eq!(json["figures"]["acknowledged_writes"], 3);
        let history = std::fs::read_to_string(dir.path().join("history.jsonl")).expect("history");
        assert_eq!(history.lines().count(), 5);
    }
}

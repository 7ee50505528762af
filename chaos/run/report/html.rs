//! The page: one file, nothing fetched from anywhere. The answer comes first, then the story, then the details.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::chart::{self, Bar, Curve, Scale, escaped};
use super::{Moment, Report, STEP, quantile, time};
use crate::run::history::{Micros, Seat};

const STYLE: &str = "
:root { color-scheme: light dark; --text: #1d2733; --soft: #5b6876; --line: #d9dfe6; --back: #fff; --card: #f5f7f9; --good: #1a7f4b;
  --bad: #c0362c; --fault: #d9822b; --leads: #2456a6; --serves: #b9cdea; --away: #e3b6b1; --second: #8a63b8; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e8ee; --soft: #9aa7b5; --line: #36404c; --back: #14181d; --card: #1d232a;
  --good: #4cc38a; --bad: #f0766b; --fault: #e69b4f; --leads: #6ea0f0; --serves: #34496b; --away: #6b3a36; --second: #b795e0; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); max-width: 1140px; margin: 0 auto; padding: 24px; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 17px; margin: 32px 0 6px; } p { margin: 4px 0; }
.soft { color: var(--soft); } .good { color: var(--good); } .bad { color: var(--bad); } .open { color: var(--fault); }
.verdict { font-size: 20px; font-weight: 600; margin: 14px 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 10px; margin: 14px 0; }
.tile { background: var(--card); border-radius: 8px; padding: 10px 14px; } .tile b { display: block; font-size: 20px; }
.tile span { color: var(--soft); font-size: 13px; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; padding: 5px 10px 5px 0; border-bottom: 1px solid var(--line);
  vertical-align: top; } th { color: var(--soft); font-weight: 500; } td.number { text-align: right; white-space: nowrap; }
code { background: var(--card); padding: 1px 5px; border-radius: 4px; overflow-wrap: anywhere; }
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--text); font-size: 12px; } text.axis { fill: var(--soft); font-size: 11px; }
.grid { stroke: var(--line); stroke-width: 1; } polyline { fill: none; stroke-width: 1.5; }
.fault { fill: var(--fault); } .leads { fill: var(--leads); } .serves { fill: var(--serves); } .away { fill: var(--away); } .gap { fill: var(--bad); }
.answered, .p50 { stroke: var(--leads); } .failed, .p99 { stroke: var(--bad); } .unknown { stroke: var(--second); }
.key { display: inline-block; width: 12px; height: 12px; border-radius: 3px; margin: 0 5px -1px 14px; }
summary { cursor: pointer; color: var(--soft); }";

pub fn page(report: &Report) -> String {
    let title = &report.title;
    let mut page = format!(
        "<!doctype html><html lang=en><head><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>{} · {}</title><style>{STYLE}</style></head><body>",
        escaped(&title.scenario),
        if report.is_broken() {
            "laws are broken"
        } else if report.holds() {
            "every law holds"
        } else {
            "not all is known"
        }
    );
    head(&mut page, report);
    laws(&mut page, report);
    story(&mut page, report);
    gaps(&mut page, report);
    details(&mut page, report);
    page + "</body></html>\n"
}

fn head(page: &mut String, report: &Report) {
    let (title, figures) = (&report.title, &report.figures);
    let broken = report.verdicts.iter().filter(|verdict| verdict.is_broken()).count();
    let nodes = match title.nodes {
        0 => String::new(),
        1 => " and one node".to_owned(),
        many => format!(" and {many} nodes"),
    };
    let _ = write!(
        page,
        "<h1>Chaos: {}</h1><p>{}.</p><p class=soft>{} masters{nodes}, target <b>{}</b>, seed {}. Faults went on for {}.</p>",
        escaped(&title.scenario),
        escaped(&title.about),
        title.masters.len(),
        escaped(&title.target),
        title.seed,
        time(report.healed.saturating_sub(report.faults_from)),
    );
    let _ = match broken {
        0 if !report.holds() => write!(
            page,
            "<p class=\"verdict open\">? No law is seen to be broken, but not all could be judged to the end.</p>"
        ),
        0 => write!(
            page,
            "<p class=\"verdict good\">✓ Every law holds: nothing acknowledged was lost, and the cluster healed.</p>"
        ),
        1 => write!(page, "<p class=\"verdict bad\">✗ One law is broken.</p>"),
        many => write!(page, "<p class=\"verdict bad\">✗ {many} laws are broken.</p>"),
    };
    let gaps: Vec<Micros> = sorted_gaps(report);
    let tiles = [
        (report.faults.len().to_string(), "faults"),
        (figures.acknowledged_writes.to_string(), "writes acknowledged"),
        (figures.answered_reads.to_string(), "reads answered"),
        (format!("{} / {}", figures.failed, figures.unknown), "calls failed / outcome unknown"),
        (format!("{} / {}", time(figures.p50), time(figures.p99)), "time of a call, p50 / p99"),
        (format!("{:.2} %", figures.available), "available while faults went on"),
        (time(figures.longest_gap), "longest without an accepted write"),
        (
            if gaps.is_empty() { "–".to_owned() } else { time(quantile(&gaps, 0.5)) },
            "gap when the leader is hit, median",
        ),
        (figures.leader_changes.to_string(), "changes of leader"),
    ];
    page.push_str("<div class=tiles>");
    for (value, words) in tiles {
        let _ = write!(page, "<div class=tile><b>{value}</b><span>{words}</span></div>");
    }
    page.push_str("</div>");
}

fn sorted_gaps(report: &Report) -> Vec<Micros> {
    let mut gaps: Vec<Micros> = report.gaps.iter().filter_map(|gap| gap.gap).collect();
    gaps.sort_unstable();
    gaps
}

fn laws(page: &mut String, report: &Report) {
    page.push_str("<h2>What must hold</h2><table><tr><th></th><th>Law</th><th>Judged by</th></tr>");
    for verdict in &report.verdicts {
        let (class, sign) = match verdict.checked {
            _ if verdict.is_broken() => ("bad", "✗ broken"),
            _ if !verdict.holds() => ("open", "? unknown"),
            0 => ("soft", "– nothing to judge"),
            _ => ("good", "✓ holds"),
        };
        let _ =
            write!(page, "<tr><td class={class} style=\"white-space:nowrap\">{sign}</td><td>{}", escaped(verdict.law));
        for broken in &verdict.broken {
            let _ = write!(page, "<br><span class=bad>{}</span>", escaped(broken));
        }
        for unknown in &verdict.unknown {
            let _ = write!(page, "<br><span class=open>{}</span>", escaped(unknown));
        }
        let _ = write!(page, "</td><td class=soft>{} {}</td></tr>", verdict.checked, verdict.unit);
    }
    page.push_str("</table>");
}

/// What masters said of themselves, as times in lanes.
fn seats(report: &Report) -> Vec<(String, Vec<Bar>)> {
    let mut lanes: BTreeMap<&str, Vec<&Seat>> =
        report.title.masters.iter().map(|name| (name.as_str(), Vec::new())).collect();
    for seat in &report.seats {
        lanes.entry(&seat.master).or_default().push(seat);
    }
    let bar = |seat: &Seat, to: Micros| {
        let (class, words) = match (seat.answers, seat.leads) {
            (false, _) => ("away", "does not answer".to_owned()),
            (true, true) => ("leads", format!("leads in term {}", seat.term)),
            (true, false) => ("serves", format!("follows in term {}", seat.term)),
        };
        let words = format!("{}: {words}, {} to {}", seat.master, time(seat.at), time(to));
        Bar { from: seat.at, to, class, words }
    };
    lanes
        .into_iter()
        .map(|(name, seats)| {
            let ends = seats.iter().skip(1).map(|seat| seat.at).chain(std::iter::once(report.ended));
            (name.to_owned(), seats.iter().zip(ends).map(|(seat, to)| bar(seat, to)).collect())
        })
        .collect()
}

fn faults(report: &Report) -> Vec<(String, Vec<Bar>)> {
    let mut lanes: BTreeMap<&str, Vec<Bar>> = BTreeMap::new();
    for fault in &report.faults {
        let to = fault.ended.unwrap_or(report.ended);
        let words = format!("{}: {}, {} to {}", fault.nemesis, fault.what, time(fault.begun), time(to));
        lanes.entry(fault.nemesis).or_default().push(Bar { from: fault.begun, to, class: "fault", words });
    }
    lanes.into_iter().map(|(name, bars)| (name.to_owned(), bars)).collect()
}

fn story(page: &mut String, report: &Report) {
    let scale = Scale { end: report.ended };
    page.push_str(
        "<h2>What happened</h2><p class=soft>Minutes and seconds from the beginning; point at a bar to read more. \
         <span class=key style=\"background:var(--fault)\"></span>fault \
         <span class=key style=\"background:var(--leads)\"></span>leads \
         <span class=key style=\"background:var(--serves)\"></span>follows \
         <span class=key style=\"background:var(--away)\"></span>does not answer \
         <span class=key style=\"background:var(--bad)\"></span>no write accepted</p>",
    );
    let mut lanes = faults(report);
    lanes.extend(seats(report));
    let gap = |gap: &super::Gap| {
        let length = gap.gap.unwrap_or(report.ended.saturating_sub(gap.at));
        let words = format!("no write was accepted for {} after: {}", time(length), gap.what);
        Bar { from: gap.at, to: gap.at + length, class: "gap", words }
    };
    lanes.push(("no writes".to_owned(), report.gaps.iter().map(gap).collect()));
    page.push_str(&chart::lanes(scale, &lanes));

    page.push_str(
        "<h2>Calls per second</h2><p class=soft><span class=key style=\"background:var(--leads)\"></span>answered \
         <span class=key style=\"background:var(--bad)\"></span>failed <span class=key style=\"background:var(--second)\"></span>outcome \
         unknown</p>",
    );
    let of = |value: fn(&Moment) -> usize| -> Vec<f64> { report.moments.iter().map(|one| value(one) as f64).collect() };
    let curve = |name, class, values| Curve { name, class, values };
    let rates = [
        curve("answered", "answered", of(|one| one.answered + one.refused)),
        curve("failed", "failed", of(|one| one.failed)),
        curve("unknown", "unknown", of(|one| one.unknown)),
    ];
    let most = rates.iter().flat_map(|curve| curve.values.iter().copied()).fold(1.0, f64::max);
    page.push_str(&chart::curves(scale, STEP, 150.0, &chart::round_marks(most), chart::linear, &rates));

    page.push_str(
        "<h2>Time of a call</h2><p class=soft><span class=key style=\"background:var(--leads)\"></span>half of the answers came \
         within this <span class=key style=\"background:var(--bad)\"></span>99 of 100 did</p>",
    );
    let ms = |value: fn(&Moment) -> Micros| -> Vec<f64> {
        // In tenths of a millisecond, so that the scale begins at 0.1 ms.
        let tenths = |one| if value(one) == 0 { f64::NAN } else { value(one) as f64 / 100.0 };
        report.moments.iter().map(tenths).collect()
    };
    let times = [curve("p50", "p50", ms(|one| one.p50)), curve("p99", "p99", ms(|one| one.p99))];
    let marks = [(10.0, "1 ms"), (100.0, "10 ms"), (1_000.0, "100 ms"), (10_000.0, "1 s"), (100_000.0, "10 s")];
    let marks = marks.map(|(value, words)| (value, words.to_owned()));
    page.push_str(&chart::curves(scale, STEP, 150.0, &marks, chart::logarithmic, &times));
}

fn gaps(page: &mut String, report: &Report) {
    if report.gaps.is_empty() {
        return;
    }
    let gaps = sorted_gaps(report);
    let _ = write!(
        page,
        "<h2>When the leader was hit</h2><p>{} times; from the last write accepted before to the next one: median {}, \
         p99 {}, longest {}. Other faults may have been at work at the same time.</p>\
         <details><summary>each of them</summary><table><tr><th>At</th><th>Nemesis</th><th>What</th><th>Gap</th></tr>",
        report.gaps.len(),
        time(quantile(&gaps, 0.5)),
        time(quantile(&gaps, 0.99)),
        time(gaps.last().copied().unwrap_or_default()),
    );
    for gap in &report.gaps {
        let length = gap.gap.map_or("no write came after it".to_owned(), time);
        let _ = write!(
            page,
            "<tr><td class=number>{}</td><td>{}</td><td>{}</td><td class=number>{length}</td></tr>",
            time(gap.at),
            gap.nemesis,
            escaped(&gap.what)
        );
    }
    page.push_str("</table></details>");
}

fn details(page: &mut String, report: &Report) {
    let title = &report.title;
    let table = |page: &mut String, name: &str, rows: &[(String, String)]| {
        let _ = write!(page, "<h2>{name}</h2><table>");
        for (name, about) in rows {
            let _ = write!(
                page,
                "<tr><td style=\"white-space:nowrap\"><b>{}</b></td><td>{}</td></tr>",
                escaped(name),
                escaped(about)
            );
        }
        page.push_str("</table>");
    };
    table(page, "What clients did", &title.workloads);
    if !title.nemeses.is_empty() {
        table(page, "What was done to the cluster", &title.nemeses);
        page.push_str("<details><summary>every fault</summary><table><tr><th>From</th><th>For</th><th>Nemesis</th><th>What</th></tr>");
        for fault in &report.faults {
            let lasted = fault.ended.map_or("to the end".to_owned(), |ended| time(ended - fault.begun));
            let _ = write!(
                page,
                "<tr><td class=number>{}</td><td class=number>{lasted}</td><td>{}</td><td>{}</td></tr>",
                time(fault.begun),
                fault.nemesis,
                escaped(&fault.what)
            );
        }
        page.push_str("</table></details>");
    }
    let _ = write!(
        page,
        "<h2>Again</h2><p><code>{}</code></p><p class=soft>A seed decides which faults strike whom and when; what the cluster \
         makes of it depends on the moment too. Every call of every client is in <code>history.jsonl</code>, these figures in \
         <code>report.json</code>.</p>",
        escaped(&title.repeat)
    );
}

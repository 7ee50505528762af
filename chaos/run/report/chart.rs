//! Pictures as inline SVG: lanes of time and curves over it, all with one time axis.

use std::fmt::Write as _;

use crate::run::history::Micros;

pub const WIDTH: f64 = 1100.0;
/// Where names of lanes stand.
const LEFT: f64 = 110.0;
const RIGHT: f64 = 20.0;
const LANE: f64 = 22.0;
const AXIS: f64 = 22.0;

pub fn escaped(text: &str) -> String {
    let mut safe = String::new();
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// Time to the right.
#[derive(Clone, Copy)]
pub struct Scale {
    pub end: Micros,
}

impl Scale {
    pub fn x(self, at: Micros) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * at.min(self.end) as f64 / self.end.max(1) as f64
    }

    /// Between two marks of the axis, in seconds: some ten of them.
    fn step(self) -> u64 {
        let seconds = (self.end / 1_000_000).max(1);
        let steps = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1_200, 1_800, 3_600, 7_200];
        steps.into_iter().find(|step| seconds / step <= 12).unwrap_or(14_400)
    }

    fn axis(self, height: f64) -> String {
        let mut svg = String::new();
        for second in (0..=self.end / 1_000_000).step_by(usize::try_from(self.step()).unwrap_or(1)) {
            let x = self.x(second * 1_000_000);
            let (minutes, rest) = (second / 60, second % 60);
            let _ = write!(
                svg,
                "<line class=grid x1={x:.1} x2={x:.1} y1=0 y2={height:.1} /><text class=axis x={x:.1} y={:.1} \
                 text-anchor=middle>{minutes}:{rest:02}</text>",
                height + 15.0
            );
        }
        svg
    }
}

/// A time in a lane.
pub struct Bar {
    pub from: Micros,
    pub to: Micros,
    pub class: &'static str,
    /// Shown when pointed at.
    pub words: String,
}

pub fn lanes(scale: Scale, lanes: &[(String, Vec<Bar>)]) -> String {
    let height = lanes.len() as f64 * LANE;
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {:.0}\" role=img>{}", height + AXIS, scale.axis(height));
    for (row, (name, bars)) in lanes.iter().enumerate() {
        let y = row as f64 * LANE;
        let _ = write!(
            svg,
            "<text class=lane x={:.0} y={:.1} text-anchor=end>{}</text>",
            LEFT - 8.0,
            y + 15.0,
            escaped(name)
        );
        for bar in bars {
            let (from, to) = (scale.x(bar.from), scale.x(bar.to));
            let _ = write!(
                svg,
                "<rect class={} x={from:.1} y={:.1} width={:.1} height={:.1} rx=2><title>{}</title></rect>",
                bar.class,
                y + 3.0,
                (to - from).max(2.5),
                LANE - 6.0,
                escaped(&bar.words)
            );
        }
    }
    svg + "</svg>"
}

/// Values of equal steps of time.
pub struct Curve<'a> {
    pub name: &'a str,
    pub class: &'static str,
    pub values: Vec<f64>,
}

/// How high a value stands, of 1.
type Measure = fn(f64, f64) -> f64;

/// Curves over each other; `marks` are values with their words, the last of them at the top.
pub fn curves(
    scale: Scale,
    step: Micros,
    height: f64,
    marks: &[(f64, String)],
    measure: Measure,
    curves: &[Curve],
) -> String {
    let top = marks.last().map_or(1.0, |(value, _)| *value);
    let y = |value: f64| 6.0 + (height - 6.0) * (1.0 - measure(value, top).clamp(0.0, 1.0));
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {:.0}\" role=img>{}", height + AXIS, scale.axis(height));
    for (value, words) in marks {
        let y = y(*value);
        let _ = write!(
            svg,
            "<line class=grid x1={LEFT} x2={:.0} y1={y:.1} y2={y:.1} /><text class=axis x={:.0} y={:.1} text-anchor=end>{}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            y + 4.0,
            escaped(words)
        );
    }
    for curve in curves {
        // A curve has holes where there is no value.
        for run in curve.values.iter().enumerate().collect::<Vec<_>>().split(|(_, value)| value.is_nan()) {
            let mut points = String::new();
            for (at, value) in run {
                // A value stands in the middle of its step.
                let x = scale.x(*at as Micros * step + step / 2);
                let _ = write!(points, "{x:.1},{:.1} ", y(**value));
            }
            let _ = write!(
                svg,
                "<polyline class={} points=\"{points}\"><title>{}</title></polyline>",
                curve.class, curve.name
            );
        }
    }
    svg + "</svg>"
}

pub fn linear(value: f64, top: f64) -> f64 {
    value / top
}

/// From 1 on.
pub fn logarithmic(value: f64, top: f64) -> f64 {
    value.max(1.0).ln() / top.max(2.0).ln()
}

/// Marks for a linear axis: a round number that nothing is above, its half, and nothing.
pub fn round_marks(most: f64) -> Vec<(f64, String)> {
    let size = 10_f64.powf(most.max(1.0).log10().floor());
    let top = [1.0, 2.0, 5.0, 10.0].into_iter().map(|part| part * size).find(|top| *top >= most).unwrap_or(most);
    [0.0, top / 2.0, top].into_iter().map(|value| (value, format!("{value}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_and_scales() {
        assert_eq!(round_marks(37.0).last().map(|mark| mark.0), Some(50.0));
        assert_eq!(round_marks(0.0).last().map(|mark| mark.0), Some(1.0));
        let scale = Scale { end: 60_000_000 };
        assert!((scale.x(60_000_000) - (WIDTH - RIGHT)).abs() < 0.01 && (scale.x(0) - LEFT).abs() < 0.01);
        assert_eq!((scale.step(), Scale { end: 3_600_000_000 }.step()), (5, 300));
        assert!((logarithmic(1_000.0, 1_000_000.0) - 0.5).abs() < 0.01);
        assert_eq!(escaped("<a href='x'>&\""), "&lt;a href=&#39;x&#39;&gt;&amp;&quot;");
    }
}

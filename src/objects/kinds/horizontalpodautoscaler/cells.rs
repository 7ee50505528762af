//! The printed row of an autoscaler: each metric as what is and what should be.

use jiff::Timestamp;
use serde_json::Value;

use super::metrics::SOURCES;
use crate::kinds::printed;
use crate::{meta, quantity};

/// So many metrics are printed; of the rest the number.
const PRINTED_MAX: usize = 2;
const UNKNOWN: &str = "<unknown>";

pub(super) fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let target = |field| meta::text(object, &["spec", "scaleTargetRef", field]);
    let min = meta::int(object, &["spec", "minReplicas"]).map_or("<unset>".to_owned(), |n| n.to_string());
    vec![
        printed::name(object),
        format!("{}/{}", target("kind"), target("name")).into(),
        targets(object).into(),
        min.into(),
        printed::count(object, &["spec", "maxReplicas"]),
        printed::count(object, &["status", "currentReplicas"]),
        printed::age(object, now),
    ]
}

fn targets(object: &Value) -> String {
    let statuses = meta::list(object, &["status", "currentMetrics"]);
    let metrics = meta::list(object, &["spec", "metrics"]);
    if metrics.is_empty() {
        return "<none>".to_owned();
    }
    let all: Vec<String> =
        metrics.iter().enumerate().map(|(i, metric)| pair(metric, statuses.get(i).unwrap_or(&Value::Null))).collect();
    match all.len() {
        n if n > PRINTED_MAX => format!("{} + {} more...", all[..PRINTED_MAX].join(", "), n - PRINTED_MAX),
        _ => all.join(", "),
    }
}

/// `cpu: 12%/80%`.
fn pair(metric: &Value, status: &Value) -> String {
    let kind = meta::text(metric, &["type"]);
    let Some((_, field)) = SOURCES.iter().find(|(name, _)| *name == kind) else {
        return "<unknown type>".to_owned();
    };
    let amount = |of: &Value, group: &str, name: &str| {
        Some(meta::text(of, &[field, group, name])).filter(|text| !text.is_empty()).map(quantity::canonical)
    };
    let percent =
        |of: &Value, group: &str| meta::int(of, &[field, group, "averageUtilization"]).map(|n| format!("{n}%"));
    let known = |text: Option<String>| text.unwrap_or_else(|| UNKNOWN.to_owned());
    let average = amount(metric, "target", "averageValue");
    match kind {
        "Resource" | "ContainerResource" => {
            let name = meta::text(metric, &[field, "name"]);
            match average {
                Some(average) => format!("{name}: {}/{average}", known(amount(status, "current", "averageValue"))),
                None => {
                    let target = percent(metric, "target").unwrap_or_else(|| "<auto>".to_owned());
                    format!("{name}: {}/{target}", known(percent(status, "current")))
                }
            }
        }
        "Pods" => format!("{}/{}", known(amount(status, "current", "averageValue")), known(average)),
        _ => match average {
            Some(average) => format!("{}/{average} (avg)", known(amount(status, "current", "averageValue"))),
            None => {
                let target = known(amount(metric, "target", "value"));
                format!("{}/{target}", known(amount(status, "current", "value")))
            }
        },
    }
}

//! The recorder behind `/metrics`: installed once per process, rendered by the API server; and the table of all that is
//! measured, from which the help texts and `docs/metrics.md` are made.
//!
//! **Invariant:** what the code records stands in [`ALL`], and what stands there is recorded: a test compares.

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

/// Bounds of every histogram of times, in seconds.
const BUCKETS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// Bounds of histograms that count things.
const COUNT_BUCKETS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0];
/// How often recorded values are moved into their buckets, which frees what holds them.
const UPKEEP_EVERY: Duration = Duration::from_secs(15);

static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Counter,
    Gauge,
    /// Of seconds.
    Seconds,
    /// Of how many.
    Counts,
}

/// One metric.
struct Metric {
    name: &'static str,
    kind: Type,
    #[cfg_attr(not(test), expect(dead_code, reason = "for the reference page, which a test makes"))]
    labels: &'static str,
    help: &'static str,
}

const fn row(name: &'static str, kind: Type, labels: &'static str, help: &'static str) -> Metric {
    Metric { name, kind, labels, help }
}

use Type::{Counter, Counts, Gauge, Seconds};

/// All that is measured, in the order of the page. Names follow Kubernetes where the same thing has one there.
const ALL: &[Metric] = &[
    row("apiserver_request_total", Counter, "verb, resource, code", "Requests that were answered"),
    row(
        "apiserver_request_duration_seconds",
        Seconds,
        "verb, resource",
        "Time from the arrival of a request to the head of its answer; not of watches",
    ),
    row("apiserver_longrunning_requests", Gauge, "verb, resource", "Watches that are open"),
    row("hactl_bound", Gauge, "setting", "The value of a bound, under the name of the setting that sets it"),
    row("hactl_bound_used", Gauge, "setting", "How much of the bound is in use"),
    row(
        "hactl_bound_refused_total",
        Counter,
        "setting",
        "What was refused because the bound was met: requests with 429, connections by closing them",
    ),
    row("hactl_store_revision", Gauge, "", "The revision this master has applied"),
    row("hactl_store_compacted_revision", Gauge, "", "History at or below this revision is gone"),
    row("hactl_store_objects", Gauge, "", "Objects in the store"),
    row("hactl_store_bytes", Gauge, "", "Bytes of all objects as they are now"),
    row("hactl_store_history_bytes", Gauge, "", "Bytes of what only history holds"),
    row("hactl_apply_seconds", Seconds, "", "Time to apply the commands of one log entry"),
    row("hactl_raft_has_leader", Gauge, "", "1 while this master knows a leader"),
    row("hactl_raft_is_leader", Gauge, "", "1 while this master leads: a quorum has acknowledged it within the lease"),
    row("hactl_raft_leader_changes_total", Counter, "", "How often this master saw another leader than before"),
    row("hactl_raft_term", Gauge, "", "The term this master is in"),
    row("hactl_raft_applied_index", Gauge, "", "The log entry applied last"),
    row("hactl_raft_commit_seconds", Seconds, "", "Time from proposing a batch, on the leader, to its outcomes"),
    row("hactl_raft_batch_commands", Counts, "", "Commands in one log entry"),
    row("hactl_raft_append_batch_entries", Counts, "", "Log entries written with one sync"),
    row("hactl_raft_fsync_seconds", Seconds, "", "Time of one sync of the log to disk"),
    row(
        "hactl_state_comparisons_total",
        Counter,
        "result",
        "Comparisons of this master's state with another's at one revision",
    ),
    row(
        "hactl_state_quarantined",
        Gauge,
        "",
        "1 while this master serves nobody, because most others hold another state",
    ),
    row("hactl_disk_sync_median_seconds", Gauge, "", "The median of the latest syncs of the log"),
    row(
        "hactl_disk_used_bytes",
        Gauge,
        "part",
        "Bytes on disk of the log, the state and the snapshots; what the last two share counts as the state's",
    ),
    row("hactl_disk_free_bytes", Gauge, "", "Free space on the data dir's file system"),
    row("hactl_disk_full", Gauge, "", "1 while less is free than `disk-reserve`, and this master takes no writes"),
    row("hactl_disk_failed", Gauge, "", "1 while the disk has failed and storage is not open again"),
    row(
        "hactl_certificate_end_seconds",
        Gauge,
        "certificate",
        "When a certificate of this master ends that it renews itself (`peer`, `api`), in seconds since 1970",
    ),
    row("hactl_snapshots_total", Counter, "result", "Snapshots this master took by itself, or failed to"),
    row("hactl_snapshot_last_saved_seconds", Gauge, "", "When the last of them was saved, in seconds since 1970"),
    row("hactl_controller_queue", Gauge, "", "Keys that wait to be planned, on the leader"),
    row("hactl_controller_queue_seconds", Seconds, "controller", "Time a key waited to be planned"),
    row("hactl_controller_plan_seconds", Seconds, "controller", "Time of one plan"),
    row("hactl_controller_retries_total", Counter, "controller", "Plans whose commands were refused or failed"),
    row("hactl_api_stalled_total", Counter, "", "Connections closed because their client took nothing of an answer"),
    row(
        "hactl_leader_panics_total",
        Counter,
        "of",
        "Decisions of the leader that a bug broke off: the log names the key",
    ),
    row("hactl_scheduler_pass_seconds", Seconds, "", "Time to place all pods that wait"),
    row("hactl_scheduler_bindings_total", Counter, "", "Pods placed on a node"),
    row("hactl_scheduler_unschedulable_pods", Gauge, "", "Pods that no node took in the last pass"),
    row("hactl_kubelet_pods", Gauge, "", "Pods this node runs"),
    row("hactl_kubelet_containers_started_total", Counter, "", "Containers started"),
    row("hactl_kubelet_image_pulls_total", Counter, "outcome", "Images pulled, or not"),
    row("hactl_kubelet_probe_failures_total", Counter, "kind", "Probes that failed"),
];

/// `None` when another recorder was installed before.
pub fn install() -> Option<PrometheusHandle> {
    RECORDER
        .get_or_init(|| {
            let mut builder = PrometheusBuilder::new().set_buckets(BUCKETS).ok()?;
            for metric in ALL.iter().filter(|metric| metric.kind == Counts) {
                builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.into()), COUNT_BUCKETS).ok()?;
            }
            let recorder = builder.build_recorder();
            let handle = recorder.handle();
            metrics::set_global_recorder(recorder).ok()?;
            for metric in ALL {
                match metric.kind {
                    Counter => metrics::describe_counter!(metric.name, metric.help),
                    Gauge => metrics::describe_gauge!(metric.name, metric.help),
                    Seconds | Counts => metrics::describe_histogram!(metric.name, metric.help),
                }
            }
            Some(handle)
        })
        .clone()
}

pub async fn upkeep(handle: PrometheusHandle, shutdown: CancellationToken) {
    let mut every = tokio::time::interval(UPKEEP_EVERY);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = every.tick() => handle.run_upkeep(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// The page's text.
    fn page() -> String {
        let mut page = String::from(
            "# Metrics\n\n\
             Made from the table in `src/master/metrics.rs`; change it there and run \
             `HACTL_UPDATE=1 cargo test -p master metrics`.\n\n\
             Every master answers `GET /metrics` in Prometheus' text format, to administrators (`kubectl get --raw /metrics`).\n\
             Times are in seconds, sizes in bytes. What nothing was recorded for yet does not show. The bounds are the settings of\n\
             [settings.md](settings.md).\n\n\
             | Metric | Type | Labels | Meaning |\n|---|---|---|---|\n",
        );
        for metric in ALL {
            let kind = match metric.kind {
                Counter => "counter",
                Gauge => "gauge",
                Seconds | Counts => "histogram",
            };
            page.push_str(&format!("| `{}` | {kind} | {} | {} |\n", metric.name, metric.labels, metric.help));
        }
        page
    }

    /// The names that the source below a folder records, by what it calls.
    fn recorded(folder: &Path, found: &mut BTreeSet<(String, &'static str)>) {
        for path in std::fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                recorded(&path, found);
                continue;
            }
            if path.extension().is_none_or(|kind| kind != "rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("a source");
            for (call, kind) in [("counter!(", "counter"), ("gauge!(", "gauge"), ("histogram!(", "histogram")] {
                let calls = text.match_indices(call).filter(|(at, _)| text[..*at].ends_with("metrics::"));
                let names = calls.filter_map(|(at, _)| text[at + call.len()..].trim_start().strip_prefix('"'));
                found.extend(names.filter_map(|rest| Some((rest.split_once('"')?.0.to_owned(), kind))));
            }
        }
    }

    #[test]
    fn the_metrics_page_is_current() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let path = root.join("docs/metrics.md");
        if std::env::var_os("HACTL_UPDATE").is_some() {
            std::fs::write(&path, page()).expect("write the page");
        }
        let present = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(present == page(), "docs/metrics.md is out of date; run HACTL_UPDATE=1 cargo test -p master metrics");
    }

    #[test]
    fn every_metric_stands_in_the_table_and_nothing_else_does() {
        let mut found = BTreeSet::new();
        recorded(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), &mut found);
        let kind = |kind| match kind {
            Counter => "counter",
            Gauge => "gauge",
            Seconds | Counts => "histogram",
        };
        let table: BTreeSet<_> = ALL.iter().map(|metric| (metric.name.to_owned(), kind(metric.kind))).collect();
        assert_eq!(table.len(), ALL.len(), "each once");
        let missing: Vec<_> = found.difference(&table).collect();
        assert!(missing.is_empty(), "add to the table ALL in src/master/metrics.rs: {missing:?}");
        let unused: Vec<_> = table.difference(&found).collect();
        assert!(unused.is_empty(), "nothing records these, remove them from src/master/metrics.rs: {unused:?}");
    }
}

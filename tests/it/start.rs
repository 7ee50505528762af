//! Starts that must fail, each with the cause and the cure, and those that must not.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{HACTL, Local, text};

fn fails(arguments: &[&str], dir: &Path) -> String {
    // Should it start after all, it is ended rather than waited for.
    let output = Command::new("timeout")
        .args(["30", HACTL])
        .args(arguments)
        .arg("--data-dir")
        .arg(dir)
        .env_remove("KUBECONFIG")
        .stdin(Stdio::null())
        .output()
        .expect("run hactl");
    assert_ne!(output.status.code(), Some(124), "{arguments:?} started");
    assert!(!output.status.success(), "{arguments:?} succeeded");
    text(&output.stderr)
}

/// A range that overlaps the first network this host has a route to; none on a machine without network.
fn network_of_this_host() -> Option<String> {
    let routes = std::fs::read_to_string("/proc/net/route").expect("routes");
    let networks = routes.lines().skip(1).map(|line| line.split_whitespace().nth(1).expect("a destination"));
    let first = networks.into_iter().find(|destination| *destination != "00000000")?;
    let [_, _, second, first] = u32::from_str_radix(first, 16).expect("hexadecimal").to_be_bytes();
    Some(format!("{first}.{second}.0.0/16"))
}

#[test]
fn bad_starts_name_cause_and_cure() {
    let dir = tempfile::tempdir().expect("dir");
    let data = dir.path().join("data");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let taken = taken.local_addr().map(|address| (taken, address.to_string())).expect("address");

    let error = fails(&["run"], &data);
    assert!(error.contains("hactl cluster init"), "{error}");

    let init = ["cluster", "init", "--foreground", "--node-name", "m", "--advertise", "127.0.0.1"];
    let with = |further: &[&str]| {
        let mut all = init.to_vec();
        all.extend(further);
        fails(&all, &data)
    };
    let error = with(&["--listen-api", &taken.1]);
    assert!(error.contains(&taken.1) && error.contains("--listen-api"), "{error}");
    if let Some(network) = network_of_this_host() {
        let error = with(&["--cluster-cidr", &network]);
        assert!(error.contains("overlaps") && error.contains("--cluster-cidr"), "{error}");
    }
    let error = with(&["--heartbeat", "soon"]);
    assert!(error.contains("--heartbeat"), "{error}");

    let file = dir.path().join("hactl.yaml");
    std::fs::write(&file, "log: info\nheartbeet: 40ms\n").expect("write");
    let error = with(&["--config", file.to_str().expect("a path")]);
    assert!(error.contains("hactl.yaml:2: unknown setting `heartbeet`"), "{error}");
    assert!(!data.exists(), "nothing half made is left");
}

#[test]
fn up_again_is_harmless_and_ports_stay() {
    let local = Local::up(1, 0);
    let before = (local.plan(), local.status()["masters"][0]["pid"].clone());
    local.ok(&["local", "up", "--masters", "1", "--nodes", "0"]);
    assert_eq!((local.plan(), local.status()["masters"][0]["pid"].clone()), before);
    let error = local.fails(&["local", "kill", "master-9"]);
    assert!(error.contains("master-1"), "{error}");
    let error = local.fails(&["local", "up", "--masters", "2", "--nodes", "0"]);
    assert!(error.contains("1, 3, 5 or 7"), "{error}");
}

/// A value of docs/settings.md as `/metrics` has it: bytes, seconds or a count.
fn number(value: &str) -> f64 {
    let unit = value.trim_start_matches(|letter: char| letter.is_ascii_digit());
    let digits: f64 = value[..value.len() - unit.len()].parse().expect("a number");
    let times = match unit {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" => 60.0,
        "h" => 3600.0,
        "KiB" => 1024.0,
        "MiB" => 1_048_576.0,
        "GiB" => 1_073_741_824.0,
        other => panic!("{other} in {value}"),
    };
    digits * times
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bound_is_a_setting_that_shows_in_the_metrics() {
    let local = Local::up_with(1, 0, &["--api-watches", "1234"]);
    let request = http::Request::get("/metrics").body(Vec::new()).expect("request");
    let metrics = local.client("local").await.request_text(request).await.expect("metrics");
    let shown = |setting: &str| -> Option<f64> {
        let name = format!("hactl_bound{{setting=\"{setting}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)).and_then(|value| value.parse().ok())
    };
    let page = include_str!("../../docs/settings.md");
    let rows = page.lines().filter_map(|line| {
        let cells: Vec<&str> = line.split(" | ").collect();
        let [setting, _, value, _] = cells.as_slice() else { return None };
        Some((setting.trim_start_matches("| `--").trim_end_matches('`'), value.trim_matches('`')))
    });
    let bounds = ["disk-", "raft-", "history", "store-quota", "event-ttl", "api-"];
    let mut count = 0;
    for (setting, value) in rows.filter(|(setting, _)| bounds.iter().any(|bound| setting.starts_with(bound))) {
        let wanted = if setting == "api-watches" { 1234.0 } else { number(value) };
        assert_eq!(shown(setting), Some(wanted), "{setting}");
        count += 1;
    }
    assert!(count > 20, "{count} bounds are in the page");
}

#[test]
fn a_second_process_on_one_data_dir_is_refused() {
    let local = Local::up(1, 0);
    let error = fails(&["run"], &local.dir().join("master-1"));
    assert!(error.contains("another `hactl run` uses"), "{error}");
}

#[test]
fn a_data_dir_of_another_cluster_is_refused() {
    let (one, other) = (Local::up(1, 0), Local::up(1, 0));
    one.ok(&["local", "kill", "master-1"]);
    other.ok(&["local", "kill", "master-1"]);
    let log = |local: &Local| local.dir().join("master-1/log");
    std::fs::remove_dir_all(log(&one)).expect("remove");
    std::fs::rename(log(&other), log(&one)).expect("move");
    let error = fails(&["run"], &one.dir().join("master-1"));
    assert!(error.contains("cluster"), "{error}");
}

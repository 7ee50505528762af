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
    // Well formed, and never shown to anybody.
    let token = rpc::token::Token::generate(&"0".repeat(64)).expect("a token").to_string();
    let join = ["cluster", "join", "127.0.0.1:1", "--token", &token, "--master", "--foreground", "--node-name", "m"];
    let join = [&join[..], &["--advertise", "127.0.0.1"]].concat();
    for (port, other) in [("--listen-api", "--listen-peer"), ("--listen-peer", "--listen-api")] {
        for command in [&init[..], &join[..]] {
            let error = fails(&[command, &[port, &taken.1, other, "127.0.0.1:0"]].concat(), &data);
            assert!(error.contains(&taken.1) && error.contains("ss -ltnp") && error.contains(port), "{error}");
        }
    }
    let error = with(&["--cluster-cidr", "198.18.0.0/16", "--service-cidr", "198.18.255.0/24"]);
    assert!(error.contains("overlap") && error.contains("--service-cidr"), "{error}");
    if let Some(network) = network_of_this_host() {
        for (setting, other) in [("--cluster-cidr", "--service-cidr"), ("--service-cidr", "--cluster-cidr")] {
            let error = with(&[setting, &network, other, "198.18.0.0/16"]);
            assert!(error.contains("overlaps") && error.contains(setting), "{error}");
        }
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
fn a_start_says_that_it_serves_or_why_it_ended() {
    let local = Local::up(1, 0);
    local.ok(&["local", "kill", "master-1"]);
    let taken = std::net::TcpListener::bind(local.address("master-1")).expect("bind");
    let error = local.fails(&["local", "start", "master-1"]);
    assert!(error.contains("master-1 ended: ") && error.contains("--listen-api"), "{error}");
    assert!(!error.contains("started"), "{error}");
    drop(taken);
    // At once, since it waited.
    local.ok(&["local", "start", "master-1"]);
    std::net::TcpStream::connect(local.address("master-1")).expect("it serves");

    local.ok(&["local", "kill", "master-1"]);
    let data = local.dir().join("master-1");
    std::fs::rename(data.join("log"), data.join("lost")).expect("move");
    let error = local.fails(&["local", "start", "master-1"]);
    assert!(error.contains("may be lost") && !error.contains("--listen-api"), "why it ended this time: {error}");
    let started = local.hactl(&["local", "start", "master-1", "--no-wait"]);
    assert!(started.status.success(), "{}", text(&started.stderr));
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
    let (data, foreign) = (one.dir().join("master-1"), other.dir().join("master-1"));
    let id = |dir: &Path| -> String {
        let text = std::fs::read(dir.join("hactl.json")).expect("hactl.json");
        let installation: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        installation["cluster_id"].as_str().expect("an id").to_owned()
    };
    let (ours, theirs) = (id(&data), id(&foreign));

    // Neither a new cluster nor a join takes a data dir that is in use.
    let token = rpc::token::Token::generate(&"0".repeat(64)).expect("a token").to_string();
    let name = ["--foreground", "--node-name", "m"];
    let ranges = ["--cluster-cidr", "198.18.0.0/16", "--service-cidr", "198.19.0.0/16"];
    let free = [&["--listen-api", "127.0.0.1:0", "--listen-peer", "127.0.0.1:0"][..], &ranges].concat();
    let init = [&["cluster", "init", "--advertise", "127.0.0.1"][..], &free[..]].concat();
    let join = ["cluster", "join", "127.0.0.1:1", "--token", &token];
    for command in [&init[..], &join[..]] {
        let error = fails(&[command, &name].concat(), &data);
        assert!(error.contains(&format!("already belongs to cluster {ours} as `master-1`")), "{error}");
        assert!(error.contains("hactl cluster leave"), "{error}");
    }

    // The log of another cluster, then all of another cluster but what this machine was told it is.
    std::fs::rename(data.join("log"), data.join("own-log")).expect("move");
    std::fs::rename(foreign.join("log"), data.join("log")).expect("move");
    let error = fails(&["run"], &data);
    let whose = format!("belongs to member 1 of cluster {theirs}, but this is member 1 of cluster {ours}");
    assert!(error.contains(&whose), "{error}");
    std::fs::copy(foreign.join("master.json"), data.join("master.json")).expect("copy");
    let error = fails(&["run"], &data);
    assert!(error.contains(&format!("of cluster {theirs}")) && error.contains("give its own --data-dir"), "{error}");
}

#[test]
fn what_init_fixed_is_the_same_for_good_and_on_every_machine() {
    let local = Local::up(1, 0);
    let file = local.dir().join("hactl.yaml");
    std::fs::write(&file, "log: info\nservice-cidr: 10.97.0.0/16\n").expect("write");
    let file = file.to_str().expect("a path");
    let place = "hactl.yaml:2: service-cidr = 10.97.0.0/16, but `hactl cluster init` fixed it at 10.96.0.0/16";

    let answer: serde_json::Value =
        serde_json::from_str(&local.ok(&["cluster", "token", "create", "--node", "-o", "json"])).expect("JSON");
    let (address, dir) = (local.address("master-1"), tempfile::tempdir().expect("dir"));
    let token = answer["token"].as_str().expect("a token");
    let join = ["cluster", "join", &address, "--token", token, "--foreground", "--node-name", "n", "--config", file];
    let error = fails(&join, &dir.path().join("data"));
    assert!(error.contains(place) && error.contains("join again"), "{error}");

    local.ok(&["local", "kill", "master-1"]);
    let data = local.dir().join("master-1");
    let error = fails(&["run", "--config", file], &data);
    assert!(error.contains(place), "{error}");
    let error = fails(&["run", "--cluster-cidr", "10.3.0.0/16"], &data);
    assert!(error.contains("--cluster-cidr: cluster-cidr = 10.3.0.0/16"), "{error}");
}

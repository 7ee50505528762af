//! The workload verbs and the benchmarks, each in its shortest form.

use crate::support::{Local, eventually, kubectl_default, text};

#[test]
fn apply_get_and_delete() {
    let local = Local::up(1, 0);
    let file = local.dir().join("objects.yaml");
    let manifest = |value: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings\ndata:\n  value: '{value}'\n---\n\
             apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n"
        )
    };
    let file = file.to_str().expect("a path");
    for (value, expected) in [
        ("1", "configmap/settings created"),
        ("1", "configmap/settings unchanged"),
        ("no", "configmap/settings configured"),
    ] {
        std::fs::write(file, manifest(value)).expect("write");
        let printed = local.ok(&["apply", "-f", file]);
        assert!(printed.contains(expected), "{printed}");
    }
    let table = local.ok(&["get", "cm"]);
    assert!(table.starts_with("NAME") && table.contains("settings"), "{table}");
    assert!(local.ok(&["get", "cm", "settings", "-o", "yaml"]).contains("value: \"no\""));
    assert!(local.ok(&["get", "ns,cm", "-o", "name"]).contains("namespace/shop"));
    assert!(local.fails(&["get", "cm", "nothing"]).contains("not found"));
    assert!(local.fails(&["get", "unicorns"]).contains("unicorns"));

    // Of several, those that are there are shown, in one table, and then what is wrong with the others.
    local.kubectl(&["create", "configmap", "further"]);
    let several = ["get", "cm", "gone", "settings", "nothing", "further"];
    let output = local.hactl(&several);
    let (table, errors) = (text(&output.stdout), text(&output.stderr));
    let rows: Vec<&str> = table.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!((output.status.code(), rows), (Some(1), vec!["NAME", "settings", "further"]), "{table}{errors}");
    let errors: Vec<&str> = errors.lines().collect();
    assert!(
        matches!(errors[..], [gone, nothing] if gone.contains("\"gone\" not found") && nothing.contains("\"nothing\" not found")),
        "{errors:?}"
    );
    let output = local.hactl(&[&several[..], &["-o", "name"]].concat());
    assert_eq!(
        (output.status.code(), text(&output.stdout).as_str()),
        (Some(1), "configmap/settings\nconfigmap/further\n")
    );
    assert_eq!(
        text(&local.try_kubectl(&kubectl_default(), &[&several[..], &["-o", "name"]].concat()).stdout),
        text(&output.stdout)
    );
    let both = local.ok(&["get", "cm/settings", "ns/shop"]);
    assert!(
        both.contains("\nconfigmap/settings") && both.contains("\n\nNAME") && both.contains("\nnamespace/shop"),
        "{both}"
    );
    let printed = local.ok(&["delete", "-f", file]);
    assert!(printed.contains("namespace/shop deleted"), "{printed}");
    assert!(!local.ok(&["get", "ns"]).contains("shop"), "delete waits until it is gone");
}

#[test]
fn failover_loses_nothing() {
    let local = Local::up(3, 0);
    let report = local.ok(&["bench", "failover", "--kills", "2", "-o", "json"]);
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["gapsMs"].as_array().map(Vec::len), Some(2), "{report}");
    assert_eq!(report["writesLost"].as_array().map(Vec::len), Some(0), "{report}");
    assert!(report["writesAcknowledged"].as_u64() > Some(0), "{report}");
    figures(&report);
}

/// What every benchmark says.
fn figures(report: &serde_json::Value) {
    for name in ["ops_per_s", "p50_ms", "p90_ms", "p99_ms", "p999_ms", "max_ms"] {
        assert!(report[name].as_f64() > Some(0.0), "{name}: {report}");
    }
    assert!(report["errors"].is_u64(), "{report}");
}

#[test]
fn benchmarks_measure_and_clear_up() {
    let local = Local::up(3, 0);
    let before = local.ok(&["get", "ns", "-o", "name"]);
    let short = ["--duration", "1s", "--warm-up", "0s", "--clients", "4", "-o", "json"];
    let bench = |arguments: &[&str]| {
        let printed = local.ok(&[&["bench"], arguments, &short].concat());
        let report: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
        figures(&report);
        assert_eq!(report["errors"], 0, "{report}");
        report
    };
    let report = bench(&["put", "--keys", "100"]);
    assert!(report["fsync_p50_ms"].as_f64() > Some(0.0), "{report}");
    assert_eq!(report["disks"].as_array().map(Vec::len), Some(3), "{report}");
    bench(&["get", "--keys", "1200"]);
    let report = bench(&["list", "--objects", "50", "--value-size", "2000"]);
    assert!(report["mb_per_s"].as_f64() > Some(0.0), "{report}");
    let report = bench(&["watch", "--watchers", "40", "--connections", "4", "--rate", "20"]);
    assert_eq!(report["events_arrived"], report["events_expected"], "{report}");
    assert!(report["events_arrived"].as_u64() > Some(0), "{report}");
    let file = local.dir().join("api.json");
    let small = ["--connections", "4", "--objects", "600", "--rate", "50", "--duration", "1s"];
    let own = std::process::id().to_string();
    let further = ["--pid", &own, "--json", file.to_str().expect("a path")];
    let printed = local.ok(&[&["bench", "api"], &small[..], &further].concat());
    for name in ["creates ", "create p99 ", "GETs ", "informer, list ", "informer, watch ", "watch p99 ", "resident "] {
        assert!(printed.contains(&format!("\n{name}")), "{name}: {printed}");
    }
    let report: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&file).expect("written")).expect("JSON");
    for name in ["creates", "reads", "watch", "store_writes"] {
        figures(&report[name]);
    }
    assert!(report["informer"]["list_s"].as_f64() > Some(0.0) && report["informer"]["watch_s"].is_f64(), "{report}");
    assert_eq!(report["aims"].as_array().map(Vec::len), Some(7), "{report}");
    eventually("the namespaces are gone", || {
        let now = local.ok(&["get", "ns", "-o", "name"]);
        if now == before { Ok(()) } else { Err(now) }
    });
    assert!(local.fails(&["bench", "etcd-put"]).contains("--endpoints"));
    assert!(local.fails(&["bench", "etcd-put", "--endpoints", "127.0.0.1:1"]).contains("127.0.0.1:1"));
}

//! The workload verbs, the failover benchmark and a chaos scenario, each in its shortest form.

use std::time::Duration;

use crate::support::Local;

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
        ("2", "configmap/settings configured"),
    ] {
        std::fs::write(file, manifest(value)).expect("write");
        let printed = local.ok(&["apply", "-f", file]);
        assert!(printed.contains(expected), "{printed}");
    }
    let table = local.ok(&["get", "cm"]);
    assert!(table.starts_with("NAME") && table.contains("settings"), "{table}");
    assert!(local.ok(&["get", "cm", "settings", "-o", "yaml"]).contains("value: '2'"));
    assert!(local.ok(&["get", "ns,cm", "-o", "name"]).contains("namespace/shop"));
    assert!(local.fails(&["get", "cm", "nothing"]).contains("not found"));
    assert!(local.fails(&["get", "unicorns"]).contains("unicorns"));
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
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_leader_kill() {
    let dir = tempfile::tempdir().expect("dir");
    let scenario = chaos::ALL.iter().find(|one| one.name == "leader-kill").expect("the scenario");
    let hactl = std::path::Path::new(crate::support::HACTL);
    let cluster = chaos::Cluster::up(hactl, dir.path(), scenario.masters, scenario.nodes).await.expect("up");
    let mut context = chaos::Context { cluster, random: chaos::Random::new(1), duration: Duration::from_secs(5) };
    let report = (scenario.run)(&mut context).await;
    context.cluster.down().await.expect("down");
    let report = report.expect("the scenario runs");
    assert!(report.violations.is_empty(), "{:?}", report.violations);
    assert!(report.faults > 0 && report.writes_acknowledged > 0);
}

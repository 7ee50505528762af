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

/// What hactl prints, and what kubectl prints for the same words.
fn as_kubectl(local: &Local, line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let printed = local.ok(&words);
    let kubectl = local.try_kubectl(&kubectl_default(), &words);
    assert_eq!(printed, text(&kubectl.stdout), "{line}: {}", text(&kubectl.stderr));
    printed
}

#[test]
fn a_deployment_is_made_changed_and_taken_back_without_kubectl() {
    let local = Local::up(1, 0);
    let ok = |line: &str| local.ok(&line.split_whitespace().collect::<Vec<_>>());
    as_kubectl(&local, "create deployment web --image=a.b/nginx:1 --replicas=2 --port=80 --dry-run=client -o name");
    let dry = ok("create deployment web --image=a.b/nginx:1 --dry-run=client -o yaml");
    assert!(dry.contains("name: nginx\n") && dry.contains("a.b/nginx:1"), "{dry}");
    let made = ok("create deployment web --image=a.b/nginx:1 --replicas=2 --port=80");
    assert_eq!(made, "deployment.apps/web created\n");
    let made = local.try_kubectl(
        &kubectl_default(),
        &[
            "get",
            "deploy",
            "web",
            "-o",
            "jsonpath={.spec.replicas} {.spec.template.spec.containers[0].ports[0].containerPort}",
        ],
    );
    assert_eq!(text(&made.stdout), "2 80");
    assert!(local.fails(&["create", "deployment", "web", "--image=i"]).contains("already exists"));

    assert_eq!(ok("scale deployment/web --replicas=3"), "deployment.apps/web scaled\n");
    assert_eq!(ok("scale deploy web --current-replicas=3 --replicas=1"), "deployment.apps/web scaled\n");
    assert!(
        local.fails(&["scale", "deploy/web", "--current-replicas=3", "--replicas=2"]).contains("it has 1 replicas")
    );

    eventually("the first revision is there", || {
        let history = ok("rollout history deployment/web");
        if history.contains("\n1 ") { Ok(()) } else { Err(history) }
    });
    assert_eq!(ok("set image deployment/web nginx=a.b/nginx:2"), "deployment.apps/web image updated\n");
    assert_eq!(ok("set image deployment/web nginx=a.b/nginx:2"), "", "nothing changes");
    assert!(local.fails(&["set", "image", "deployment/web", "c=i"]).contains("no container c"));
    eventually("the second revision is there", || {
        let history = ok("rollout history deployment/web");
        if history.contains("\n2 ") { Ok(()) } else { Err(history) }
    });
    let history = as_kubectl(&local, "rollout history deployment/web");
    assert_eq!(history, "deployment.apps/web \nREVISION  CHANGE-CAUSE\n1         <none>\n2         <none>\n\n");
    let first = as_kubectl(&local, "rollout history deploy/web --revision=1");
    assert!(first.starts_with("deployment.apps/web with revision #1\nPod Template:\n  Labels:\tapp=web"), "{first}");
    // Without a node nothing becomes available.
    let waits = as_kubectl(&local, "rollout status deployment/web --watch=false");
    assert!(waits.starts_with("Waiting for deployment \"web\" rollout to finish: "), "{waits}");
    assert!(local.fails(&["rollout", "status", "deployment/web", "--timeout=1s"]).contains("within 1s"));

    assert_eq!(ok("rollout pause deployment/web"), "deployment.apps/web paused\n");
    assert!(local.fails(&["rollout", "restart", "deployment/web"]).contains("it is paused"));
    assert!(local.fails(&["rollout", "undo", "deployment/web"]).contains("it is paused"));
    assert_eq!(ok("rollout resume deployment/web"), "deployment.apps/web resumed\n");
    assert_eq!(ok("rollout undo deployment/web"), "deployment.apps/web rolled back\n");
    let image = "jsonpath={.spec.template.spec.containers[0].image}";
    assert_eq!(
        text(&local.try_kubectl(&kubectl_default(), &["get", "deploy", "web", "-o", image]).stdout),
        "a.b/nginx:1"
    );
    let same = "deployment.apps/web skipped rollback (current template already matches revision ";
    eventually("it is the newest revision", || {
        let history = ok("rollout history deployment/web");
        if history.contains("\n3 ") { Ok(()) } else { Err(history) }
    });
    assert!(ok("rollout undo deployment/web --to-revision=3").starts_with(same));
    assert_eq!(ok("rollout restart deployment/web"), "deployment.apps/web restarted\n");
    assert!(local.fails(&["rollout", "restart", "cm/kube-root-ca.crt"]).contains("has no rollout"));

    assert_eq!(ok("expose deployment web --port=80 --target-port=8080"), "service/web exposed\n");
    let service = ["get", "svc", "web", "-o", "jsonpath={.spec.ports[0].targetPort} {.spec.selector.app}"];
    assert_eq!(text(&local.try_kubectl(&kubectl_default(), &service).stdout), "8080 web");
    let events = ok("events --for deployment/web");
    assert!(events.starts_with("LAST SEEN") && events.contains("ScalingReplicaSet"), "{events}");
    assert_eq!(ok("events --types=Warning --for deployment/web"), "");
    let page = ok("describe deployment/web");
    for part in [
        "deployment.apps/web\n",
        "\nReady:",
        "\nConditions:\n",
        "replicaset.apps/web-",
        "pod/web-",
        "ScalingReplicaSet",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let pod = ok("get pods -l app=web -o name").lines().next().expect("a pod").to_owned();
    let page = ok(&format!("describe {pod}"));
    assert!(page.contains("\nWaits:\n") && page.contains("of deployment.apps/web"), "{page}");
    assert_eq!(ok("top pods"), "", "nothing runs");
    assert!(ok("completion bash").contains("_hactl"));
}

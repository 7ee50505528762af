//! The life of a deployment, by each kubectl that is promised to work.

use std::path::Path;

use crate::support::{Local, eventually, kubectls, text};

/// One kubectl on one cluster.
struct Kubectl<'a> {
    local: &'a Local,
    program: &'a Path,
}

impl Kubectl<'_> {
    fn ok(&self, line: &str) -> String {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let output = self.local.try_kubectl(self.program, &arguments);
        assert!(output.status.success(), "{} {line}: {}", self.program.display(), text(&output.stderr));
        text(&output.stdout)
    }

    /// What it printed, or why it failed.
    fn tried(&self, line: &str) -> Result<String, String> {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let output = self.local.try_kubectl(self.program, &arguments);
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    fn fails(&self, line: &str) -> String {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let output = self.local.try_kubectl(self.program, &arguments);
        assert!(!output.status.success(), "{} {line} succeeded", self.program.display());
        text(&output.stderr)
    }

    /// Of the running pods of `web`, one output line of this jsonpath each.
    fn pods(&self, path: &str) -> Vec<String> {
        let template = format!("jsonpath={{range.items[*]}}{{{path}}}{{\"\\n\"}}{{end}}").replace("range.", "range .");
        let arguments = ["get", "pods", "-l", "app=web", "-o", &template];
        let output = self.local.try_kubectl(self.program, &arguments);
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout).lines().map(str::to_owned).collect()
    }
}

#[test]
fn a_deployment_lives_by_every_kubectl() {
    let local = Local::calm(3, 2);
    for program in kubectls() {
        let kubectl = Kubectl { local: &local, program: &program };
        life_of_a_deployment(&kubectl);
        what_is_refused(&kubectl);
    }
    what_is_used(&local);
}

/// By every kubectl, whichever master holds the nodes' sessions.
fn what_is_used(local: &Local) {
    local.kubectl(&["create", "deployment", "busy", "--image=hactl.local/sample:1", "--replicas=2"]);
    eventually("both pods are measured", || {
        let table = local.kubectl(&["get", "pods.metrics.k8s.io", "-l", "app=busy"]);
        if table.matches("busy-").count() == 2 { Ok(()) } else { Err(table) }
    });
    for program in kubectls() {
        let kubectl = Kubectl { local, program: &program };
        let nodes = kubectl.ok("top nodes");
        assert!(["node-1 ", "node-2 "].iter().all(|name| nodes.contains(name)), "{nodes}");
        assert!(nodes.contains('%') && !nodes.contains("<unknown>"), "{nodes}");
        let pods = kubectl.ok("top pods -l app=busy --containers");
        assert!(pods.matches("sample").count() >= 2 && pods.contains("Mi"), "{pods}");
        let none = kubectl.tried("top pod nothing");
        assert!(none.is_err_and(|why| why.contains("not found")), "a pod that is not there");
    }
    let ours = local.ok(&["top", "pods", "-A", "--sum", "--sort-by=memory"]);
    assert!(ours.starts_with("NAMESPACE") && ours.matches("busy-").count() == 2, "{ours}");
    assert!(local.ok(&["top", "nodes"]).contains("node-2"));
    local.kubectl(&["delete", "deployment", "busy"]);
}

fn life_of_a_deployment(kubectl: &Kubectl<'_>) {
    kubectl.ok("create deployment web --image=hactl.local/sample:1 --replicas=4");
    kubectl.ok("rollout status deployment/web --timeout=180s");
    let nodes = kubectl.pods(".spec.nodeName");
    assert_eq!(nodes.len(), 4);
    for node in ["node-1", "node-2"] {
        assert_eq!(nodes.iter().filter(|one| *one == node).count(), 2, "spread over both: {nodes:?}");
    }
    let wide = kubectl.ok("get pods -o wide");
    assert!(wide.contains("Running") && wide.contains("10."), "{wide}");

    kubectl.ok("scale deployment/web --replicas=2");
    eventually("two pods are left", || {
        let count = kubectl.pods(".metadata.name").len();
        if count == 2 { Ok(()) } else { Err(format!("{count} pods")) }
    });

    kubectl.ok("set image deployment/web sample=hactl.local/sample:2");
    kubectl.ok("rollout status deployment/web --timeout=180s");
    let images = kubectl.pods(".spec.containers[0].image");
    assert!(images.iter().filter(|image| *image == "hactl.local/sample:2").count() >= 2, "{images:?}");
    kubectl.ok("rollout undo deployment/web");
    kubectl.ok("rollout status deployment/web --timeout=180s");
    eventually("the old image runs again", || {
        let images = kubectl.pods(".spec.containers[0].image");
        if images == ["hactl.local/sample:1"; 2] { Ok(()) } else { Err(format!("{images:?}")) }
    });
    assert!(kubectl.ok("rollout history deployment/web").contains('3'));

    // The pod may be gone again when a machine under load counted as dead: then another is asked.
    let pod = eventually("a pod says how it started, answers and logs it", || {
        let pod = kubectl.pods(".metadata.name").into_iter().next().ok_or("no pod")?;
        let described = kubectl.tried(&format!("describe pod {pod}"))?;
        if !described.contains("Started container") || !described.contains("hactl.local/sample:1") {
            return Err(described);
        }
        let address = kubectl.tried(&format!("get pod {pod} -o jsonpath={{.status.podIP}}"))?;
        let page = get(&format!("{address}:8080")).map_err(|error| error.to_string())?;
        let logs = kubectl.tried(&format!("logs {pod}"))?;
        if page.contains("version 1") && !logs.is_empty() { Ok(pod) } else { Err(format!("{page}\n{logs}")) }
    });

    kubectl.ok(&format!("delete pod {pod}"));
    eventually("it is replaced", || {
        let names = kubectl.pods(".metadata.name");
        if names.len() == 2 && !names.contains(&pod) { Ok(()) } else { Err(format!("{names:?}")) }
    });
    kubectl.ok("delete deployment web");
    eventually("its pods are gone", || {
        let names = kubectl.pods(".metadata.name");
        if names.is_empty() { Ok(()) } else { Err(format!("{names:?}")) }
    });
}

fn what_is_refused(kubectl: &Kubectl<'_>) {
    let manifest = |spec: &str| {
        let path = kubectl.local.dir().join("wrong.yaml");
        let text = format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: wrong\nspec:\n{spec}");
        std::fs::write(&path, text).expect("write");
        kubectl.fails(&format!("create -f {}", path.display()))
    };
    let error = manifest("  containers:\n  - name: c\n    image: hactl.local/sample:1\n    imagee: x\n");
    assert!(error.contains("imagee"), "{error}");
    let error = manifest("  containers: 7\n");
    assert!(error.contains("spec.containers"), "{error}");
    assert!(kubectl.fails("get pod nothing").contains("not found"));
    kubectl.ok("create deployment fixed --image=hactl.local/sample:1 --replicas=0");
    let other = "{\"spec\":{\"selector\":{\"matchLabels\":{\"app\":\"other\"}}}}";
    let error = kubectl.fails(&format!("patch deployment fixed -p {other}"));
    assert!(error.contains("spec.selector") && error.contains("field is immutable"), "{error}");
    kubectl.ok("delete deployment fixed");
    let error = kubectl.fails("scale deployment/nothing --replicas=1");
    assert!(error.to_lowercase().contains("not found") || error.contains("no objects passed"), "{error}");
}

/// The body of `GET /`.
fn get(address: &str) -> std::io::Result<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.write_all(format!("GET / HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

#[test]
fn an_image_that_does_not_exist_and_a_pod_that_fits_nowhere_say_so() {
    let local = Local::calm(1, 1);
    let program = crate::support::kubectl_default();
    let kubectl = Kubectl { local: &local, program: &program };
    kubectl.ok("create deployment missing --image=hactl.local/nothing:1");
    kubectl.ok("run huge --image=hactl.local/sample:1 --restart=Never --overrides={\"spec\":{\"containers\":[{\"name\":\"huge\",\"image\":\"hactl.local/sample:1\",\"resources\":{\"requests\":{\"cpu\":\"1000\"}}}]}}");
    eventually("the reasons show", || {
        let pods = kubectl.ok("get pods");
        let pull = pods.contains("ErrImagePull") || pods.contains("ImagePullBackOff");
        let events = kubectl.ok("describe pod huge");
        if pull && events.contains("FailedScheduling") && events.contains("cpu") {
            Ok(())
        } else {
            Err(format!("{pods}\n{events}"))
        }
    });
}

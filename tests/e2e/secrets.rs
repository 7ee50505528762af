//! Secrets on a node: in memory where pods read them, sealed where the node remembers them.

use std::io::Write as _;
use std::process::{Command, Stdio};

use base64::Engine as _;

use crate::support::{Local, eventually, text};

const PLAIN: &str = "correct-horse-battery-of-the-node";

#[test]
fn a_secret_of_a_pod_is_on_no_disk_of_its_node() {
    let local = Local::calm(1, 1);
    let objects = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: password}}\nstringData: {{value: {PLAIN}}}\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata: {{name: reader}}\nspec:\n  containers:\n  - name: web\n    image: hactl.local/sample:1\n    \
         volumeMounts: [{{name: keys, mountPath: /keys}}]\n  volumes:\n  - name: keys\n    secret: {{secretName: password}}\n"
    );
    let file = local.dir().join("objects.yaml");
    std::fs::File::create(&file).and_then(|mut file| file.write_all(objects.as_bytes())).expect("write");
    local.kubectl(&["apply", "-f", file.to_str().expect("a path")]);
    std::fs::remove_file(&file).expect("remove");
    local.kubectl(&["wait", "--for=condition=Ready", "pod/reader", "--timeout=180s"]);

    // The pod has it, in memory.
    let data_dir = local.dir().join("node-1");
    let volume = eventually("the volume is mounted", || {
        let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
        let own = mounts.lines().find(|line| line.starts_with("tmpfs") && line.contains("/volumes/keys"));
        own.and_then(|line| line.split_whitespace().nth(1)).map(str::to_owned).ok_or(mounts)
    });
    assert!(volume.starts_with(data_dir.to_str().expect("a path")), "{volume}");
    assert_eq!(std::fs::read_to_string(format!("{volume}/value")).expect("the secret"), PLAIN);

    // What is saved is sealed: neither the text nor its base64 is in any file of the node or the master that is on disk.
    eventually("the assignment is saved", || match data_dir.join("kubelet/saved").exists() {
        true => Ok(()),
        false => Err("no file yet"),
    });
    let encoded = base64::engine::general_purpose::STANDARD_NO_PAD.encode(PLAIN);
    for dir in [data_dir, local.dir().join("master-1")] {
        let found = Command::new("find")
            .arg(&dir)
            .args(["-xdev", "-type", "f", "-exec", "grep", "-laF", "-e", PLAIN, "-e"])
            .arg(encoded.trim_end_matches('='))
            .args(["{}", "+"])
            .stdin(Stdio::null())
            .output()
            .expect("find");
        assert_eq!(text(&found.stdout), "", "{}", dir.display());
    }
}

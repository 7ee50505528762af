//! `hactl rollout history` and `undo`: the templates that a deployment had, as its replica sets keep them.

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use super::{Found, Target, is_paused};
use crate::cli::workload::discovery::Resource;
use crate::cli::workload::{encoded, read, selector_of};

const REVISION: &str = "deployment.kubernetes.io/revision";
const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";
const HASH: &str = "pod-template-hash";
/// Annotations that are of the deployment as it is, and not of one of its templates.
const OWN: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    "deployment.kubernetes.io/revision-history",
    "deployment.kubernetes.io/desired-replicas",
    "deployment.kubernetes.io/max-replicas",
    "deprecated.deployment.rollback.to",
];

/// Show the templates that a deployment had
#[derive(Debug, clap::Args)]
pub struct History {
    #[command(flatten)]
    target: Target,
    /// Show this one whole
    #[arg(long, value_name = "N")]
    revision: Option<i64>,
}

/// Go back to a template that a deployment had
#[derive(Debug, clap::Args)]
pub struct Undo {
    #[command(flatten)]
    target: Target,
    /// To this one [default: the one before]
    #[arg(long, value_name = "N", default_value_t = 0)]
    to_revision: i64,
}

/// Of a deployment, or of one of its replica sets.
pub fn revision_of(object: &Value) -> Option<i64> {
    object["metadata"]["annotations"][REVISION].as_str()?.parse().ok()
}

/// The deployment's own replica sets that stand for a template of it, the oldest first.
async fn revisions(found: &Found, resource: &Resource, deployment: &Value) -> Result<Vec<(i64, Value)>> {
    let none = Map::new();
    let labels = deployment["spec"]["selector"]["matchLabels"].as_object().unwrap_or(&none);
    let sets = found.catalog.named("replicasets.apps")?;
    let path = format!("{}?labelSelector={}", sets.collection(Some(&found.namespace)), encoded(&selector_of(labels)));
    let mut list = read(&found.client, &path).await?;
    let uid = &deployment["metadata"]["uid"];
    let owned = |set: &Value| {
        let owners = set["metadata"]["ownerReferences"].as_array().map_or(&[][..], Vec::as_slice);
        owners.iter().any(|owner| owner["uid"] == *uid && owner["kind"] == resource.kind.as_str())
    };
    let sets = list["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
    let numbered = sets.into_iter().filter(owned).filter_map(|set| Some((revision_of(&set)?, set)));
    let mut all: Vec<(i64, Value)> = numbered.collect();
    all.sort_by_key(|(revision, _)| *revision);
    Ok(all)
}

impl History {
    pub async fn run(self) -> Result<()> {
        let found = self.target.find().await?;
        let (resource, name) = found.deployment(&self.target.what)?;
        let label = resource.label(name);
        let deployment = found.get(resource, name).await.with_context(|| format!("cannot show {label}"))?;
        let all = revisions(&found, resource, &deployment).await?;
        if let Some(wanted) = self.revision {
            let set = all.iter().find(|(revision, _)| *revision == wanted);
            let (_, set) = set.with_context(|| format!("{label} has no revision {wanted}"))?;
            print!("{label} with revision #{wanted}\n{}", template(&set["spec"]["template"]));
            return Ok(());
        }
        println!("{label} ");
        print!("{}", table(&all));
        Ok(())
    }
}

fn table(all: &[(i64, Value)]) -> String {
    let mut text = format!("{:<10}{}\n", "REVISION", "CHANGE-CAUSE");
    for (revision, set) in all {
        let cause = set["metadata"]["annotations"][CHANGE_CAUSE].as_str().unwrap_or("<none>");
        text.push_str(&format!("{revision:<10}{cause}\n"));
    }
    text + "\n"
}

/// The template in a few lines, as kubectl shows it: what runs, and with what.
fn template(template: &Value) -> String {
    let spec = &template["spec"];
    let mut lines = vec!["Pod Template:".to_owned()];
    for (title, field) in [("Labels", "labels"), ("Annotations", "annotations")] {
        for (at, pair) in pairs(&template["metadata"][field]).iter().enumerate() {
            lines.push(if at == 0 { format!("  {title}:\t{pair}") } else { format!("\t{pair}") });
        }
    }
    for (title, list) in [("Init Containers", "initContainers"), ("Containers", "containers")] {
        let containers = items(&spec[list]);
        if !containers.is_empty() {
            lines.push(format!("  {title}:"));
            containers.iter().for_each(|container| lines.extend(of_container(container)));
        }
    }
    let named = |value: &Value, field: &str| {
        let names = items(value).iter().filter_map(|item| item[field].as_str().map(str::to_owned));
        or_none(&names.collect::<Vec<_>>(), ", ")
    };
    lines.push(format!("  Volumes:\t{}", named(&spec["volumes"], "name")));
    lines.push(format!("  Node-Selectors:\t{}", or_none(&pairs(&spec["nodeSelector"]), ",")));
    lines.push(format!("  Tolerations:\t{}", named(&spec["tolerations"], "key")));
    lines.join("\n") + "\n\n"
}

fn of_container(container: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut lines =
        vec![format!("   {}:", text(&container["name"])), format!("    Image:\t{}", text(&container["image"]))];
    let ports = items(&container["ports"]);
    let several = if ports.len() > 1 { "s" } else { "" };
    for (title, field) in [("Port", "containerPort"), ("Host Port", "hostPort")] {
        let port = |port: &Value| {
            let protocol = port["protocol"].as_str().unwrap_or("TCP");
            format!("{}/{protocol}", port[field].as_u64().unwrap_or(0))
        };
        let ports: Vec<String> = ports.iter().map(port).collect();
        lines.push(format!("    {title}{several}:\t{}", or_none(&ports, ", ")));
    }
    for (title, field) in [("Command", "command"), ("Args", "args")] {
        if !items(&container[field]).is_empty() {
            lines.push(format!("    {title}:"));
            lines.extend(items(&container[field]).iter().map(|word| format!("      {}", text(word))));
        }
    }
    let environment = items(&container["env"]).iter().map(|entry| {
        let from = if entry["valueFrom"].is_object() { "<set from elsewhere>" } else { "" };
        format!("      {}:\t{}", text(&entry["name"]), entry["value"].as_str().unwrap_or(from))
    });
    let mounts = items(&container["volumeMounts"]).iter().map(|mount| {
        let mode = if mount["readOnly"] == true { "ro" } else { "rw" };
        format!("      {} from {} ({mode})", text(&mount["mountPath"]), text(&mount["name"]))
    });
    for (title, below) in [("Environment", environment.collect::<Vec<_>>()), ("Mounts", mounts.collect())] {
        lines.push(if below.is_empty() { format!("    {title}:\t<none>") } else { format!("    {title}:") });
        lines.extend(below);
    }
    lines
}

fn items(list: &Value) -> &[Value] {
    list.as_array().map_or(&[], Vec::as_slice)
}

fn pairs(map: &Value) -> Vec<String> {
    let pairs = map.as_object().into_iter().flatten();
    pairs.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect()
}

fn or_none(parts: &[String], between: &str) -> String {
    if parts.is_empty() { "<none>".to_owned() } else { parts.join(between) }
}

impl Undo {
    pub async fn run(self) -> Result<()> {
        let found = self.target.find().await?;
        let (resource, name) = found.deployment(&self.target.what)?;
        let label = resource.label(name);
        let done = self.back(&found, resource, name).await;
        println!("{label} {}", done.with_context(|| format!("{label} is not rolled back"))?);
        Ok(())
    }

    async fn back(&self, found: &Found, resource: &Resource, name: &str) -> Result<String> {
        let deployment = found.get(resource, name).await?;
        anyhow::ensure!(!is_paused(&deployment), "it is paused; `hactl rollout resume` it first");
        let all = revisions(found, resource, &deployment).await?;
        let (revision, set) = chosen(&all, self.to_revision)?;
        let Some(patch) = patch(&deployment, set) else {
            return Ok(format!("skipped rollback (current template already matches revision {revision})"));
        };
        found.patch(resource, name, "json-patch+json", &patch).await?;
        Ok("rolled back".to_owned())
    }
}

/// The revision that is meant; 0: the one before the last.
fn chosen(all: &[(i64, Value)], wanted: i64) -> Result<(i64, &Value)> {
    let found = match wanted {
        0 if all.len() < 2 => bail!("it has had no template before this one"),
        0 => all.iter().rev().nth(1),
        wanted => all.iter().find(|(revision, _)| *revision == wanted),
    };
    let (revision, set) = found.with_context(|| format!("it has no revision {wanted}"))?;
    Ok((*revision, set))
}

/// Template and annotations as they were; `None` where the template is that already.
fn patch(deployment: &Value, set: &Value) -> Option<Value> {
    let mut template = set["spec"]["template"].clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.shift_remove(HASH);
    }
    if template == deployment["spec"]["template"] {
        return None;
    }
    let annotations = |object: &Value| object["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
    let own = |key: &String| OWN.contains(&key.as_str());
    let mut wanted: Map<String, Value> = annotations(deployment).into_iter().filter(|(key, _)| own(key)).collect();
    wanted.extend(annotations(set).into_iter().filter(|(key, _)| !own(key)));
    let uid = &deployment["metadata"]["uid"];
    Some(json!([
        {"op": "test", "path": "/metadata/uid", "value": uid},
        {"op": "replace", "path": "/spec/template", "value": template},
        {"op": "add", "path": "/metadata/annotations", "value": wanted},
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(revision: i64, image: &str, cause: Option<&str>) -> (i64, Value) {
        let mut annotations = json!({REVISION: revision.to_string(), "deployment.kubernetes.io/desired-replicas": "2"});
        if let Some(cause) = cause {
            annotations[CHANGE_CAUSE] = json!(cause);
        }
        let template = json!({
            "metadata": {"labels": {"app": "web", HASH: "1"}},
            "spec": {"containers": [{
                "name": "c", "image": image, "args": ["-v"], "ports": [{"containerPort": 80}],
                "env": [{"name": "A", "value": "1"}],
            }]},
        });
        (revision, json!({"metadata": {"annotations": annotations}, "spec": {"template": template}}))
    }

    #[test]
    fn the_one_before_is_the_default() {
        let all = [set(1, "i:1", None), set(3, "i:3", Some("by hand")), set(4, "i:4", None)];
        let of = |wanted| chosen(&all, wanted).map(|(revision, _)| revision).map_err(|error| error.to_string());
        assert_eq!((of(0), of(1)), (Ok(3), Ok(1)));
        assert_eq!(of(2), Err("it has no revision 2".to_owned()));
        assert!(chosen(&all[..1], 0).is_err());
        assert_eq!(table(&all[..2]), "REVISION  CHANGE-CAUSE\n1         <none>\n3         by hand\n\n");
        assert_eq!(
            template(&all[0].1["spec"]["template"]),
            "Pod Template:\n  Labels:\tapp=web\n\tpod-template-hash=1\n  Containers:\n   c:\n    Image:\ti:1\n    \
             Port:\t80/TCP\n    Host Port:\t0/TCP\n    Args:\n      -v\n    Environment:\n      A:\t1\n    Mounts:\t<none>\n  \
             Volumes:\t<none>\n  Node-Selectors:\t<none>\n  Tolerations:\t<none>\n\n"
        );
    }

    #[test]
    fn what_is_taken_back() {
        let (_, old) = set(1, "i:1", Some("first"));
        let mut present = old["spec"]["template"].clone();
        present["metadata"]["labels"] = json!({"app": "web"});
        let mut deployment = json!({
            "metadata": {"uid": "u", "annotations": {REVISION: "4", CHANGE_CAUSE: "fourth"}},
            "spec": {"template": present},
        });
        assert_eq!(patch(&deployment, &old), None);
        deployment["spec"]["template"]["spec"]["containers"][0]["image"] = json!("i:4");
        let patch = patch(&deployment, &old).expect("a patch");
        assert_eq!(patch[1]["value"]["metadata"]["labels"], json!({"app": "web"}));
        assert_eq!(patch[1]["value"]["spec"]["containers"][0]["image"], "i:1");
        assert_eq!(patch[2]["value"], json!({REVISION: "4", CHANGE_CAUSE: "first"}));
    }
}

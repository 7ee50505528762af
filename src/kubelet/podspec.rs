//! From a pod to what the engine is asked to create. Pure.
//!
//! Not here: volumes' contents (`volumes`) and when anything is created (`plan`).

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1 as core;
use objects::quantity;

use crate::env::{self, Facts, Source};
use crate::plan::spec_hash;
use crate::runtime::{Mount, Network, Port, Spec, label};

/// More cores than any machine has: a greater limit is none.
const CPU_MILLI_MAX: i64 = 100_000_000;

/// The first characters of the names of everything that this node makes: a hash of cluster and node.
pub fn short_hash(cluster_id: &str, node_uid: &str) -> String {
    let text = format!("{cluster_id}/{node_uid}");
    hex::encode(&ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref()[..4])
}

pub fn uid(pod: &core::Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}
pub fn name(pod: &core::Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}
pub fn namespace(pod: &core::Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or("default")
}
pub fn host_network(pod: &core::Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or(false)
}

/// The name that the pod's programs see.
pub fn hostname(pod: &core::Pod) -> String {
    let stated = pod.spec.as_ref().and_then(|spec| spec.hostname.clone());
    let mut name = stated.filter(|name| !name.is_empty()).unwrap_or_else(|| name(pod).to_owned());
    name.truncate(63);
    name.trim_end_matches(['-', '.']).to_owned()
}

fn container_name(hash: &str, pod: &core::Pod, container: &str, attempt: u32) -> String {
    let uid: String = uid(pod).chars().filter(char::is_ascii_alphanumeric).take(12).collect();
    format!("{hash}_{container}_{}_{}_{uid}_{attempt}", name(pod), namespace(pod))
}

fn labels(pod: &core::Pod, container: &str, attempt: u32) -> BTreeMap<String, String> {
    let grace = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
    [
        (label::POD_UID, uid(pod).to_owned()),
        (label::POD_NAME, name(pod).to_owned()),
        (label::POD_NAMESPACE, namespace(pod).to_owned()),
        (label::CONTAINER, container.to_owned()),
        (label::ATTEMPT, attempt.to_string()),
        (label::GRACE, grace.to_string()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// The sandbox: the network namespace, its address and the ports published on the host.
pub fn sandbox(hash: &str, pod: &core::Pod, bridge: &str, address: Option<Ipv4Addr>, attempt: u32) -> Spec {
    let mut labels = labels(pod, label::SANDBOX, attempt);
    let network = match address {
        Some(address) => {
            labels.insert(label::ADDRESS.to_owned(), address.to_string());
            Network::Bridge { name: bridge.to_owned(), address }
        }
        None => Network::Host,
    };
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let ports = containers.iter().flat_map(|container| container.ports.iter().flatten()).filter_map(|port| {
        Some(Port {
            container: u16::try_from(port.container_port).ok()?,
            host: port.host_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)?,
            protocol: port.protocol.as_deref().unwrap_or("TCP").to_lowercase(),
            host_ip: port.host_ip.clone().unwrap_or_default(),
        })
    });
    Spec {
        name: container_name(hash, pod, "POD", attempt),
        image: crate::images::sandbox(),
        labels,
        hostname: if address.is_some() { hostname(pod) } else { String::new() },
        ports: if address.is_some() { ports.collect() } else { Vec::new() },
        network,
        cpu_shares: Some(2),
        ..Spec::default()
    }
}

/// Where one container stands in the pod's life.
pub struct Place<'a> {
    pub hash: &'a str,
    pub sandbox_id: &'a str,
    pub attempt: u32,
    pub step: u32,
    pub facts: &'a Facts,
    pub mounts: Vec<Mount>,
    /// `USER` of the image.
    pub image_user: &'a str,
}

/// An app container. An error is the message of CreateContainerConfigError.
pub fn container(
    pod: &core::Pod,
    wanted: &core::Container,
    place: Place<'_>,
    source: &dyn Source,
) -> Result<Spec, String> {
    let variables = env::variables(pod, wanted, place.facts, source)?;
    let known: BTreeMap<String, String> = variables.iter().cloned().collect();
    let expanded = |words: &Option<Vec<String>>| {
        words
            .as_ref()
            .filter(|words| !words.is_empty())
            .map(|words| words.iter().map(|word| env::expand(word, &known)).collect())
    };
    let mut labels = labels(pod, &wanted.name, place.attempt);
    labels.insert(label::SPEC_HASH.to_owned(), spec_hash(wanted));
    labels.insert(label::STEP.to_owned(), place.step.to_string());
    let amount = |kind: &str, name: &str| {
        let resources = wanted.resources.as_ref()?;
        let all = if kind == "limits" { &resources.limits } else { &resources.requests };
        all.as_ref()?.get(name).map(|quantity| quantity.0.as_str())
    };
    let cpu_request = amount("requests", "cpu").or(amount("limits", "cpu")).map(quantity::milli);
    let memory_limit = amount("limits", "memory").map(quantity::value).filter(|bytes| *bytes > 0);
    let memory_request = amount("requests", "memory").map(quantity::value).unwrap_or(0);
    let cpu_limit = amount("limits", "cpu").map(quantity::milli).filter(|milli| *milli > 0);
    let mut spec = Spec {
        name: container_name(place.hash, pod, &wanted.name, place.attempt),
        image: wanted.image.clone().unwrap_or_default(),
        labels,
        entrypoint: expanded(&wanted.command),
        args: expanded(&wanted.args),
        env: variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect(),
        working_dir: wanted.working_dir.clone().filter(|dir| !dir.is_empty()),
        mounts: place.mounts,
        network: Network::Of(place.sandbox_id.to_owned()),
        cpu_shares: Some(cpu_request.map_or(2, |milli| (milli.min(CPU_MILLI_MAX) * 1024 / 1000).clamp(2, 262_144))),
        cpu_quota: cpu_limit.map(|milli| (milli.min(CPU_MILLI_MAX) * 100).max(1000)),
        memory: memory_limit,
        oom_score_adj: Some(oom_score(qos_class(pod), memory_request, place.facts.memory_bytes)),
        tty: wanted.tty.unwrap_or(false),
        stdin: wanted.stdin.unwrap_or(false),
        stdin_once: wanted.stdin_once.unwrap_or(false),
        ..Spec::default()
    };
    // Docker keeps an image's CMD when only the entrypoint is replaced; Kubernetes drops it.
    if spec.entrypoint.is_some() && spec.args.is_none() {
        spec.args = Some(Vec::new());
    }
    security(pod, wanted, place.image_user, &mut spec)?;
    Ok(spec)
}

fn security(pod: &core::Pod, wanted: &core::Container, image_user: &str, spec: &mut Spec) -> Result<(), String> {
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.security_context.clone()).unwrap_or_default();
    let own = wanted.security_context.clone().unwrap_or_default();
    let user = own.run_as_user.or(of_pod.run_as_user);
    let group = own.run_as_group.or(of_pod.run_as_group);
    spec.user = match (user, group) {
        (Some(user), Some(group)) => Some(format!("{user}:{group}")),
        (Some(user), None) => Some(user.to_string()),
        (None, Some(group)) => Some(format!("{}:{group}", if image_user.is_empty() { "0" } else { image_user })),
        (None, None) => None,
    };
    if own.run_as_non_root.or(of_pod.run_as_non_root) == Some(true) {
        let image_user = image_user.split(':').next().unwrap_or_default();
        match user {
            Some(0) => return Err("container's runAsUser breaks non-root policy".to_owned()),
            None if image_user.is_empty() || image_user == "0" || image_user == "root" => {
                return Err("container has runAsNonRoot and image will run as root".to_owned());
            }
            _ => {}
        }
    }
    spec.groups =
        of_pod.supplemental_groups.iter().flatten().chain(&of_pod.fs_group).map(ToString::to_string).collect();
    spec.privileged = own.privileged.unwrap_or(false);
    spec.read_only_root = own.read_only_root_filesystem.unwrap_or(false);
    spec.no_new_privileges = own.allow_privilege_escalation == Some(false) && !spec.privileged;
    if let Some(capabilities) = own.capabilities {
        spec.cap_add = capabilities.add.unwrap_or_default();
        spec.cap_drop = capabilities.drop.unwrap_or_default();
    }
    Ok(())
}

/// Guaranteed, Burstable or BestEffort.
pub fn qos_class(pod: &core::Pod) -> &'static str {
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let mut any = false;
    let mut guaranteed = !containers.is_empty();
    for container in containers {
        let resources = container.resources.clone().unwrap_or_default();
        let (limits, requests) = (resources.limits.unwrap_or_default(), resources.requests.unwrap_or_default());
        for name in ["cpu", "memory"] {
            let limit = limits.get(name).map(|q| quantity::milli(&q.0)).filter(|amount| *amount > 0);
            let request = requests.get(name).map(|q| quantity::milli(&q.0)).filter(|amount| *amount > 0);
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (guaranteed, any) {
        (true, _) => "Guaranteed",
        (false, true) => "Burstable",
        (false, false) => "BestEffort",
    }
}

/// How readily the kernel ends the container when memory is short, in Kubernetes' order. Never below zero: engines without
/// CAP_SYS_RESOURCE cannot start such a container at all.
fn oom_score(class: &str, request: i64, capacity: i64) -> i64 {
    match class {
        "Guaranteed" => 0,
        "BestEffort" => 1000,
        _ if capacity <= 0 => 999,
        _ => (1000 - (1000 * i128::from(request) / i128::from(capacity)) as i64).clamp(3, 999),
    }
}

/// The pod's /etc/hosts.
pub fn hosts_file(pod: &core::Pod, address: Ipv4Addr) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    text.push_str(&format!("{address}\t{}\n", hostname(pod)));
    for alias in pod.spec.as_ref().and_then(|spec| spec.host_aliases.as_ref()).into_iter().flatten() {
        text.push_str(&format!("{}\t{}\n", alias.ip, alias.hostnames.clone().unwrap_or_default().join("\t")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(resources: serde_json::Value) -> core::Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "web-1", "namespace": "shop", "uid": "11112222-3333-4444-5555-666677778888"},
            "spec": {"containers": [{"name": "web", "image": "i:1", "resources": resources,
                "command": ["run", "$(A)"], "env": [{"name": "A", "value": "x"}],
                "ports": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81}]}]}
        }))
        .expect("a pod")
    }

    struct Nothing;
    impl Source for Nothing {
        fn config_map(&self, _: &str) -> Option<core::ConfigMap> {
            None
        }
        fn secret(&self, _: &str) -> Option<core::Secret> {
            None
        }
        fn services(&self) -> Vec<core::Service> {
            Vec::new()
        }
    }

    #[test]
    fn classes() {
        for (resources, expect) in [
            (json!({}), "BestEffort"),
            (json!({"requests": {"cpu": "1"}}), "Burstable"),
            (json!({"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed"),
            (
                json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1Gi"}}),
                "Guaranteed",
            ),
            (json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}), "Burstable"),
        ] {
            assert_eq!(qos_class(&pod(resources.clone())), expect, "{resources}");
        }
    }

    #[test]
    fn specs() {
        let pod = pod(json!({"limits": {"cpu": "500m", "memory": "64Mi"}}));
        let address = Ipv4Addr::new(10, 1, 0, 5);
        let box_spec = sandbox("abcd", &pod, "abcd-pods", Some(address), 2);
        assert_eq!(box_spec.name, "abcd_POD_web-1_shop_111122223333_2");
        assert_eq!(box_spec.ports.len(), 1);
        assert_eq!(box_spec.labels[label::ADDRESS], "10.1.0.5");
        let facts = Facts::default();
        let place = Place {
            hash: "abcd",
            sandbox_id: "s",
            attempt: 1,
            step: 3,
            facts: &facts,
            mounts: Vec::new(),
            image_user: "",
        };
        let wanted = &pod.spec.as_ref().expect("spec").containers[0];
        let spec = container(&pod, wanted, place, &Nothing).expect("a spec");
        assert_eq!(spec.entrypoint, Some(vec!["run".to_owned(), "x".to_owned()]));
        assert_eq!(spec.args, Some(Vec::new()));
        assert_eq!((spec.cpu_shares, spec.cpu_quota, spec.memory), (Some(512), Some(50_000), Some(64 << 20)));
        assert_eq!(spec.labels[label::STEP], "3");
    }
}

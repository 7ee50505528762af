//! Which lists and maps have which owners: the table against what Kubernetes documents.

use super::*;

/// The type at a path: `[]` are the items of a list.
fn at_path(api_version: &str, kind: &str, path: &str) -> Type<'static> {
    path.split('.').fold(Schema::kind(api_version, kind), |of, step| match step.strip_suffix("[]") {
        Some(list) => of.descend(list).item_type().unwrap_or_else(|| panic!("{path}: {list} has no items")),
        None => of.descend(step),
    })
}

fn form(of: Type<'_>) -> String {
    let (map, list) = (json!({"a": 1}), json!([]));
    match of.list_keys() {
        Some(keys) if keys.is_empty() => "set".to_owned(),
        Some(keys) => keys.join("+"),
        None => {
            assert!(matches!(of.shape([Some(&list)]), super::super::schema::Shape::Leaf));
            if matches!(of.shape([Some(&map)]), super::super::schema::Shape::Map) {
                "map or atomic list"
            } else {
                "atomic"
            }
            .to_owned()
        }
    }
}

#[test]
fn lists_and_maps_are_as_documented() {
    const OPEN: &str = "map or atomic list";
    let pod = "spec.template.spec";
    let cases = [
        ("apps/v1", "Deployment", "metadata.finalizers", "set"),
        ("apps/v1", "Deployment", "metadata.ownerReferences", "uid"),
        ("apps/v1", "Deployment", "metadata.labels", OPEN),
        ("apps/v1", "Deployment", "spec.selector", "atomic"),
        ("apps/v1", "Deployment", "status.conditions", "type"),
        ("apps/v1", "Deployment", &format!("{pod}.containers"), "name"),
        ("apps/v1", "Deployment", &format!("{pod}.containers[].ports"), "containerPort+protocol"),
        ("apps/v1", "Deployment", &format!("{pod}.containers[].env"), "name"),
        ("apps/v1", "Deployment", &format!("{pod}.containers[].env[].valueFrom.secretKeyRef"), "atomic"),
        ("apps/v1", "Deployment", &format!("{pod}.containers[].envFrom"), OPEN),
        ("apps/v1", "Deployment", &format!("{pod}.containers[].args"), OPEN),
        ("apps/v1", "Deployment", &format!("{pod}.containers[].volumeMounts"), "mountPath"),
        ("apps/v1", "Deployment", &format!("{pod}.containers[].volumeDevices"), "devicePath"),
        ("apps/v1", "Deployment", &format!("{pod}.containers[].resources.claims"), "name"),
        ("apps/v1", "Deployment", &format!("{pod}.containers[].resources.limits"), OPEN),
        ("apps/v1", "Deployment", &format!("{pod}.initContainers"), "name"),
        ("apps/v1", "Deployment", &format!("{pod}.ephemeralContainers[].env"), "name"),
        ("apps/v1", "Deployment", &format!("{pod}.volumes"), "name"),
        ("apps/v1", "Deployment", &format!("{pod}.volumes[].configMap.items"), OPEN),
        ("apps/v1", "Deployment", &format!("{pod}.tolerations"), OPEN),
        ("apps/v1", "Deployment", &format!("{pod}.nodeSelector"), "atomic"),
        ("apps/v1", "Deployment", &format!("{pod}.imagePullSecrets"), "name"),
        ("apps/v1", "Deployment", &format!("{pod}.hostAliases"), "ip"),
        ("apps/v1", "Deployment", &format!("{pod}.topologySpreadConstraints"), "topologyKey+whenUnsatisfiable"),
        ("apps/v1", "Deployment", &format!("{pod}.schedulingGates"), "name"),
        ("apps/v1", "Deployment", &format!("{pod}.readinessGates"), OPEN),
        (
            "apps/v1",
            "Deployment",
            &format!("{pod}.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution"),
            "atomic",
        ),
        ("apps/v1", "Deployment", &format!("{pod}.securityContext.sysctls"), OPEN),
        ("apps/v1", "StatefulSet", "spec.volumeClaimTemplates", OPEN),
        ("apps/v1", "DaemonSet", "spec.template.spec.containers[].ports", "containerPort+protocol"),
        ("apps/v1", "ReplicaSet", "spec.selector", "atomic"),
        ("v1", "ReplicationController", "spec.selector", "atomic"),
        ("v1", "Pod", "status.podIPs", "ip"),
        ("v1", "Pod", "status.conditions", "type"),
        ("v1", "Service", "spec.ports", "port+protocol"),
        ("v1", "Service", "spec.selector", "atomic"),
        ("v1", "Service", "spec.clusterIPs", OPEN),
        ("v1", "Node", "spec.taints", OPEN),
        ("v1", "Node", "spec.podCIDRs", "set"),
        ("v1", "Node", "status.addresses", "type"),
        ("v1", "Node", "status.images", OPEN),
        ("v1", "Endpoints", "subsets", OPEN),
        ("v1", "ConfigMap", "data", OPEN),
        ("v1", "Secret", "data", OPEN),
        ("v1", "ServiceAccount", "secrets", "name"),
        ("v1", "ServiceAccount", "imagePullSecrets", OPEN),
        ("v1", "Namespace", "status.conditions", "type"),
        ("v1", "PersistentVolumeClaim", "spec.accessModes", OPEN),
        ("v1", "PersistentVolumeClaim", "spec.selector", "atomic"),
        ("v1", "PersistentVolume", "spec.claimRef", "atomic"),
        ("v1", "ResourceQuota", "spec.hard", OPEN),
        ("v1", "LimitRange", "spec.limits", OPEN),
        ("v1", "Event", "involvedObject", "atomic"),
        ("discovery.k8s.io/v1", "EndpointSlice", "endpoints", OPEN),
        ("discovery.k8s.io/v1", "EndpointSlice", "ports", OPEN),
        ("networking.k8s.io/v1", "Ingress", "spec.rules", OPEN),
        ("networking.k8s.io/v1", "Ingress", "spec.tls", OPEN),
        ("networking.k8s.io/v1", "NetworkPolicy", "spec.ingress", OPEN),
        ("networking.k8s.io/v1", "NetworkPolicy", "spec.podSelector", "atomic"),
        ("rbac.authorization.k8s.io/v1", "ClusterRole", "rules", OPEN),
        ("rbac.authorization.k8s.io/v1", "RoleBinding", "roleRef", "atomic"),
        ("rbac.authorization.k8s.io/v1", "RoleBinding", "subjects", OPEN),
        ("autoscaling/v2", "HorizontalPodAutoscaler", "spec.metrics", OPEN),
        ("autoscaling/v2", "HorizontalPodAutoscaler", "status.conditions", "type"),
        ("autoscaling/v1", "HorizontalPodAutoscaler", "spec.scaleTargetRef", "atomic"),
        ("batch/v1", "CronJob", "spec.jobTemplate.spec.template.spec.containers", "name"),
        ("batch/v1", "Job", "status.uncountedTerminatedPods.failed", "set"),
        ("policy/v1", "PodDisruptionBudget", "spec.selector", "atomic"),
        ("certificates.k8s.io/v1", "CertificateSigningRequest", "status.conditions", "type"),
        ("storage.k8s.io/v1", "CSINode", "spec.drivers", "name"),
        ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", "webhooks", "name"),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition", "spec.versions", OPEN),
        ("example.com/v1", "Anything", "metadata.finalizers", "set"),
        ("example.com/v1", "Anything", "spec.list", OPEN),
    ];
    for (api_version, kind, path, expect) in cases {
        assert_eq!(form(at_path(api_version, kind, path)), expect, "{kind} {path}");
    }
}

/// A kind whose row the table lacks would take every list for atomic.
#[test]
fn every_served_kind_has_its_types() {
    let unknown = format!("{:?}", Schema::kind("", "").descend("spec"));
    for kind in crate::Kinds::builtin().all() {
        let of = Type::of(kind);
        assert_eq!(of.descend("metadata").descend("finalizers").list_keys(), Some(vec![]), "{kind:?}");
        if kind.status && kind.kind != "Namespace" {
            assert!(of.descend("spec").is_struct(), "{kind:?}: {unknown}");
        }
    }
}

//! The one list of pod fields that the kubelet does not honour yet. A pod or template that sets one is refused (422),
//! so that nothing is silently ignored. The list only shrinks; a test holds it against the fields the API has.

use serde_json::Value;

use crate::{At, Errors, meta};

/// When a field counts as set.
enum When {
    /// It says anything but the zero value.
    Set,
    /// It is there, even if empty.
    Present,
    /// It says something else than these.
    Not(&'static [&'static str]),
    /// It is a map with other keys than these.
    Keys(&'static [&'static str]),
    /// It says anything, and its parent's member is not this.
    Unless(&'static str, &'static str),
}

use When::{Keys, Not, Present, Set, Unless};

/// Path below the pod's spec (`[]` for every item), when it is refused, why.
type Row = (&'static str, When, &'static str);

const OTHER_VOLUME: &str = "only emptyDir, hostPath, configMap and secret volumes are supported yet";
const OWN_NAMESPACES: &str = "pods share no namespaces with the host or between their containers yet";
const NO_CLAIMS: &str = "dynamic resource allocation is not supported";

static ROWS: &[Row] = &[
    ("activeDeadlineSeconds", Set, "deadlines of pods are not enforced yet"),
    ("affinity", Set, "affinity is not scheduled by yet; use nodeSelector"),
    ("dnsConfig", Set, "DNS settings of pods are not applied yet"),
    ("dnsPolicy", Not(&["ClusterFirst", "Default"]), "only ClusterFirst and Default are supported yet"),
    ("ephemeralContainers", Set, "ephemeral containers are not run yet"),
    ("hostAliases", Set, "host aliases are not written yet"),
    ("hostIPC", Set, OWN_NAMESPACES),
    ("hostNetwork", Set, OWN_NAMESPACES),
    ("hostPID", Set, OWN_NAMESPACES),
    ("hostUsers", Not(&["true"]), "user namespaces are not supported yet"),
    ("hostnameOverride", Set, "is not supported yet; use hostname"),
    ("imagePullSecrets", Set, "images are pulled with the Docker Engine's own credentials yet"),
    ("initContainers", Set, "init containers are not run yet"),
    ("os.name", Not(&["linux"]), "nodes run Linux"),
    ("overhead", Set, "overhead is not accounted for yet"),
    ("readinessGates", Set, "readiness gates are not evaluated yet"),
    ("resourceClaims", Set, NO_CLAIMS),
    ("resources", Set, "resources of a whole pod are not supported yet; set them on its containers"),
    ("runtimeClassName", Set, "runtime classes are not supported yet"),
    ("schedulerName", Not(&["default-scheduler"]), "there is one scheduler, default-scheduler"),
    ("schedulingGates", Set, "scheduling gates are not supported yet"),
    ("schedulingGroup", Set, "scheduling groups are not supported"),
    ("securityContext", Set, "security contexts are not applied yet"),
    ("setHostnameAsFQDN", Set, "pods have no domain names yet"),
    ("shareProcessNamespace", Set, OWN_NAMESPACES),
    ("subdomain", Set, "pods have no domain names yet"),
    ("topologySpreadConstraints", Set, "spread constraints are not scheduled by yet"),
    // Containers.
    ("containers[].env[].valueFrom.fileKeyRef", Present, "variables from files are not supported yet"),
    ("containers[].env[].valueFrom.resourceFieldRef", Present, "resourceFieldRef is not resolved yet"),
    ("containers[].lifecycle", Set, "lifecycle hooks are not run yet"),
    ("containers[].livenessProbe.grpc", Present, "gRPC probes are not run yet"),
    (
        "containers[].livenessProbe.terminationGracePeriodSeconds",
        Set,
        "a grace of its own for probes is not supported yet",
    ),
    ("containers[].readinessProbe.grpc", Present, "gRPC probes are not run yet"),
    ("containers[].readinessProbe.terminationGracePeriodSeconds", Set, "must not be set for readiness probes"),
    ("containers[].resources.claims", Set, NO_CLAIMS),
    ("containers[].resources.limits", Keys(&["cpu", "memory"]), "only cpu and memory are supported yet"),
    ("containers[].resources.requests", Keys(&["cpu", "memory"]), "only cpu and memory are supported yet"),
    ("containers[].restartPolicy", Set, "restart policies of single containers are not supported yet"),
    ("containers[].restartPolicyRules", Set, "restart policies of single containers are not supported yet"),
    ("containers[].securityContext", Set, "security contexts are not applied yet"),
    ("containers[].startupProbe", Set, "startup probes are not run yet"),
    ("containers[].terminationMessagePolicy", Not(&["File"]), "only File is supported yet"),
    ("containers[].volumeDevices", Set, "block devices are not supported yet"),
    ("containers[].volumeMounts[].mountPropagation", Not(&["None"]), "mounts are not propagated yet"),
    ("containers[].volumeMounts[].recursiveReadOnly", Not(&["Disabled"]), "is not supported yet"),
    ("containers[].volumeMounts[].subPath", Set, "subPath is not supported yet"),
    ("containers[].volumeMounts[].subPathExpr", Set, "subPathExpr is not supported yet"),
    // Volumes.
    ("volumes[].awsElasticBlockStore", Present, OTHER_VOLUME),
    ("volumes[].azureDisk", Present, OTHER_VOLUME),
    ("volumes[].azureFile", Present, OTHER_VOLUME),
    ("volumes[].cephfs", Present, OTHER_VOLUME),
    ("volumes[].cinder", Present, OTHER_VOLUME),
    ("volumes[].csi", Present, OTHER_VOLUME),
    ("volumes[].downwardAPI", Present, OTHER_VOLUME),
    (
        "volumes[].emptyDir.sizeLimit",
        Unless("medium", "Memory"),
        "a size limit is only enforced with medium Memory yet",
    ),
    ("volumes[].ephemeral", Present, OTHER_VOLUME),
    ("volumes[].fc", Present, OTHER_VOLUME),
    ("volumes[].flexVolume", Present, OTHER_VOLUME),
    ("volumes[].flocker", Present, OTHER_VOLUME),
    ("volumes[].gcePersistentDisk", Present, OTHER_VOLUME),
    ("volumes[].gitRepo", Present, OTHER_VOLUME),
    ("volumes[].glusterfs", Present, OTHER_VOLUME),
    ("volumes[].image", Present, OTHER_VOLUME),
    ("volumes[].iscsi", Present, OTHER_VOLUME),
    ("volumes[].nfs", Present, OTHER_VOLUME),
    ("volumes[].persistentVolumeClaim", Present, OTHER_VOLUME),
    ("volumes[].photonPersistentDisk", Present, OTHER_VOLUME),
    ("volumes[].portworxVolume", Present, OTHER_VOLUME),
    ("volumes[].projected", Present, OTHER_VOLUME),
    ("volumes[].quobyte", Present, OTHER_VOLUME),
    ("volumes[].rbd", Present, OTHER_VOLUME),
    ("volumes[].scaleIO", Present, OTHER_VOLUME),
    ("volumes[].storageos", Present, OTHER_VOLUME),
    ("volumes[].vsphereVolume", Present, OTHER_VOLUME),
];

/// Refuses what the list names.
pub(super) fn validate(spec: &At<'_>, errors: &mut Errors) {
    for (path, when, reason) in ROWS {
        let segments: Vec<&str> = path.split('.').collect();
        visit(spec, &segments, &mut |parent, at| {
            if applies(when, parent, at) {
                errors.push(at.forbidden(*reason));
            }
        });
    }
}

/// Calls `f` with each place the path leads to, and its parent.
fn visit(at: &At<'_>, path: &[&str], f: &mut dyn FnMut(&At<'_>, &At<'_>)) {
    let Some((first, rest)) = path.split_first() else { return };
    if let Some(list) = first.strip_suffix("[]") {
        for item in at.field(list).items() {
            visit(&item, rest, f);
        }
        return;
    }
    let next = at.field(first);
    if rest.is_empty() {
        f(at, &next);
    } else if next.is_set() {
        visit(&next, rest, f);
    }
}

fn applies(when: &When, parent: &At<'_>, at: &At<'_>) -> bool {
    match when {
        Set => !says_nothing(at.value),
        Present => at.is_set(),
        Not(values) => match at.value {
            Value::Null => false,
            Value::String(text) => !text.is_empty() && !values.contains(&text.as_str()),
            other => !values.contains(&other.to_string().as_str()),
        },
        Keys(keys) => at.entries().any(|(key, _)| !keys.contains(&key)),
        Unless(sibling, value) => !at.is_empty() && parent.field(sibling).text() != *value,
    }
}

/// The zero value: but inside a map 0 and false say something (`runAsUser: 0`), as there they may stand for pointers.
fn says_nothing(value: &Value) -> bool {
    fn hollow(value: &Value) -> bool {
        match value {
            Value::Object(map) => map.values().all(hollow),
            Value::Bool(_) | Value::Number(_) => false,
            other => meta::is_empty(other),
        }
    }
    if value.is_object() { hollow(value) } else { meta::is_empty(value) }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Container, EnvVarSource, PodSpec, Probe, Volume, VolumeMount};
    use serde::de::{self, Deserialize, Visitor};
    use serde_json::json;

    use super::*;

    /// A deserializer that only looks at which fields a struct asks for.
    struct Names<'a>(&'a mut Vec<&'static str>);

    impl<'de> de::Deserializer<'de> for Names<'_> {
        type Error = de::value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(de::Error::custom("only structs"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Self::Error> {
            self.0.extend_from_slice(fields);
            Err(de::Error::custom("seen"))
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    fn fields_of<T: for<'de> Deserialize<'de>>() -> Vec<&'static str> {
        let mut names = Vec::new();
        let _ = T::deserialize(Names(&mut names));
        assert!(!names.is_empty());
        names
    }

    /// What the kubelet, the scheduler or nobody needs to honour: `enableServiceLinks`, say, adds variables only when
    /// there are Services to add.
    const HONOURED: &[(&str, &[&str])] = &[
        (
            "",
            &[
                "automountServiceAccountToken",
                "containers",
                "enableServiceLinks",
                "hostname",
                "nodeName",
                "nodeSelector",
                "os",
                "preemptionPolicy",
                "priority",
                "priorityClassName",
                "restartPolicy",
                "serviceAccount",
                "serviceAccountName",
                "terminationGracePeriodSeconds",
                "tolerations",
                "volumes",
            ],
        ),
        (
            "containers[].",
            &[
                "args",
                "command",
                "env",
                "envFrom",
                "image",
                "imagePullPolicy",
                "livenessProbe",
                "name",
                "ports",
                "readinessProbe",
                "resizePolicy",
                "resources",
                "stdin",
                "stdinOnce",
                "terminationMessagePath",
                "tty",
                "volumeMounts",
                "workingDir",
            ],
        ),
        ("containers[].volumeMounts[].", &["mountPath", "name", "readOnly"]),
        ("containers[].env[].valueFrom.", &["configMapKeyRef", "fieldRef", "secretKeyRef"]),
        (
            "containers[].livenessProbe.",
            &[
                "exec",
                "failureThreshold",
                "httpGet",
                "initialDelaySeconds",
                "periodSeconds",
                "successThreshold",
                "tcpSocket",
                "timeoutSeconds",
            ],
        ),
        ("volumes[].", &["configMap", "emptyDir", "hostPath", "name", "secret"]),
    ];

    #[test]
    fn every_field_is_honoured_or_refused() {
        let structs: [(&str, Vec<&str>); 6] = [
            ("", fields_of::<PodSpec>()),
            ("containers[].", fields_of::<Container>()),
            ("containers[].volumeMounts[].", fields_of::<VolumeMount>()),
            ("containers[].env[].valueFrom.", fields_of::<EnvVarSource>()),
            ("containers[].livenessProbe.", fields_of::<Probe>()),
            ("volumes[].", fields_of::<Volume>()),
        ];
        for (prefix, fields) in structs {
            let honoured = HONOURED.iter().find(|(p, _)| *p == prefix).map_or(&[][..], |(_, fields)| *fields);
            for field in fields {
                let path = format!("{prefix}{field}");
                let refused = ROWS.iter().any(|(row, _, _)| *row == path);
                assert!(refused != honoured.contains(&field), "{path} must be honoured or refused, not both");
            }
        }
    }

    #[test]
    fn what_is_refused() {
        let container = |extra: Value| {
            let mut container = json!({"name": "c", "image": "i"});
            container.as_object_mut().expect("object").extend(extra.as_object().expect("object").clone());
            json!({"containers": [container]})
        };
        for (spec, expected) in [
            (json!({"initContainers": [{"name": "a"}]}), Some("spec.initContainers")),
            (json!({"initContainers": [], "hostNetwork": false, "affinity": {}, "securityContext": {}}), None),
            (json!({"hostNetwork": true}), Some("spec.hostNetwork")),
            (json!({"hostUsers": true}), None),
            (json!({"hostUsers": false}), Some("spec.hostUsers")),
            (json!({"dnsPolicy": "None"}), Some("spec.dnsPolicy")),
            (json!({"dnsPolicy": "Default", "priority": 5, "preemptionPolicy": "Never"}), None),
            (json!({"securityContext": {"runAsUser": 0}}), Some("spec.securityContext")),
            (json!({"securityContext": {"sysctls": [], "seLinuxOptions": {}}}), None),
            (json!({"securityContext": {"runAsUser": 1}}), Some("spec.securityContext")),
            (json!({"volumes": [{"name": "v", "projected": {}}]}), Some("spec.volumes[0].projected")),
            (json!({"volumes": [{"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]}), None),
            (
                json!({"volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}]}),
                Some("spec.volumes[0].emptyDir.sizeLimit"),
            ),
            (container(json!({"lifecycle": {}})), None),
            (container(json!({"livenessProbe": {"grpc": {"port": 1}}})), Some("spec.containers[0].livenessProbe.grpc")),
            (container(json!({"resources": {"limits": {"gpu/x": "1"}}})), Some("spec.containers[0].resources.limits")),
            (container(json!({"resources": {"limits": {"cpu": "1"}}})), None),
            (
                container(json!({"volumeMounts": [{"subPath": "a"}]})),
                Some("spec.containers[0].volumeMounts[0].subPath"),
            ),
            (
                container(json!({"terminationMessagePolicy": "FallbackToLogsOnError"})),
                Some("spec.containers[0].terminationMessagePolicy"),
            ),
        ] {
            let mut errors = Vec::new();
            validate(&At::new("spec", &spec), &mut errors);
            let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
            assert_eq!(fields, expected.into_iter().collect::<Vec<_>>(), "{spec}");
        }
    }
}

#!/usr/bin/env python3
"""Writes schema.txt, the table by which Kubernetes' protobuf bodies become JSON.

    python3 generate.py <k8s-pb>/src <k8s-openapi>/src/v1_36 > schema.txt

k8s-pb (prost structs made from Kubernetes' .proto files) knows tags and types but has snake-case names; k8s-openapi has the
JSON names. Both sides are compared in lower case without punctuation. Run it again when either crate is updated.

One line per message: `<package>.<Message> <tag>:<json name>:<type><flags> …`, where type is
  s string   i integer   b bool   d double   y bytes (base64 in JSON)   or the name of another message,
and flags are
  *  repeated              %  map from string          ~  JSON flattens this message into its parent
  ?  zero means unset (a Go field that is no pointer and has omitempty)
  !  an empty string means something (a Go pointer)
A line `group <apiVersion> <package>` says where the kinds of a group and version stand.
"""
import os
import re
import sys

PB, OPENAPI = sys.argv[1], sys.argv[2]

# Messages that JSON flattens into their parent, by message and normalised field.
INLINE = {
    ("Volume", "volumesource"), ("PersistentVolumeSpec", "persistentvolumesource"), ("Probe", "handler"),
    ("EphemeralContainer", "ephemeralcontainercommon"), ("ConfigMapEnvSource", "localobjectreference"),
    ("SecretEnvSource", "localobjectreference"), ("ConfigMapKeySelector", "localobjectreference"),
    ("SecretKeySelector", "localobjectreference"), ("ConfigMapProjection", "localobjectreference"),
    ("SecretProjection", "localobjectreference"), ("ConfigMapVolumeSource", "localobjectreference"),
    ("IngressRule", "ingressrulevalue"), ("NamedRuleWithOperations", "rulewithoperations"),
    ("RuleWithOperations", "rule"), ("DeviceClaimConfiguration", "deviceconfiguration"),
    ("DeviceClassConfiguration", "deviceconfiguration"), ("DeviceAllocationConfiguration", "deviceconfiguration"),
}
# JSON names that no rule finds.
NAMES = {
    ("BoundObjectReference", "uid"): "uid",
    ("IngressClassParametersReference", "apigroup"): "apiGroup",
    ("ConfigMapNodeConfigSource", "uid"): "uid",
}
# Pointer strings whose empty value means something.
KEEP_EMPTY = {"storageClassName", "volumeAttributesClassName", "ingressClassName", "apiGroup"}
KEEP_EMPTY_IN = {("HostPathVolumeSource", "type"), ("PersistentVolumeSpec", "volumeMode")}
# Optional numbers and booleans that Go holds by value with omitempty: zero on the wire means unset.
BY_VALUE = {
    "*": "readOnly hostPort initialDelaySeconds periodSeconds successThreshold failureThreshold nodePort healthCheckNodePort "
         "publishNotReadyAddresses hostNetwork hostPID hostIPC stdin stdinOnce tty unschedulable generation "
         "observedGeneration minReadySeconds paused globalDefault retryAfterSeconds code",
    "Probe": "timeoutSeconds",
    "Event": "count",
    "EventSeries": "count",
    "DeprecatedEvent": "deprecatedCount",
    "DeploymentStatus": "replicas updatedReplicas readyReplicas availableReplicas unavailableReplicas",
    "ReplicaSetStatus": "fullyLabeledReplicas readyReplicas availableReplicas",
    "ReplicationControllerStatus": "fullyLabeledReplicas readyReplicas availableReplicas",
    "StatefulSetStatus": "readyReplicas currentReplicas updatedReplicas",
    "StatefulSetOrdinals": "start",
    "DaemonSetStatus": "updatedNumberScheduled numberAvailable numberUnavailable",
    "JobStatus": "active succeeded failed",
    "HorizontalPodAutoscalerStatus": "currentReplicas",
    "ContainerStateTerminated": "signal",
    "ContainerImage": "sizeBytes",
    "AwsElasticBlockStoreVolumeSource": "partition",
    "GcePersistentDiskVolumeSource": "partition",
    "IscsiVolumeSource": "chapAuthDiscovery chapAuthSession",
    "IscsiPersistentVolumeSource": "chapAuthDiscovery chapAuthSession",
    "ScaleIoVolumeSource": "sslEnabled",
    "ScaleIoPersistentVolumeSource": "sslEnabled",
    "SubjectAccessReviewStatus": "denied",
    "TokenReviewStatus": "authenticated",
    "ServiceBackendPort": "number",
}


def norm(name):
    return re.sub(r"[_$-]", "", name).lower()


def openapi_names():
    """Per struct (normalised) and over all: normalised field -> JSON name; and the required ones."""
    per, every = {}, {}
    for root, _, files in os.walk(OPENAPI):
        for file in files:
            text = open(os.path.join(root, file)).read()
            m = re.search(r"^pub struct (\w+)", text, re.M)
            if not m:
                continue
            names = re.findall(r'^\s+"([^"]+)" => Field::Key_', text, re.M)
            table = per.setdefault(norm(m.group(1)), {})
            optional = {norm(f.replace("r#", "")) for f in re.findall(r"^    pub ([\w#]+): Option<", text, re.M)}
            for name in names:
                table[norm(name)] = (name, norm(name) in optional)
                every.setdefault(norm(name), {}).setdefault(name, 0)
                every[norm(name)][name] += 1
    return per, every


PER, EVERY = openapi_names()


def camel(snake):
    head, *tail = snake.split("_")
    return head + "".join(t.capitalize() for t in tail)


def json_name(message, rust, doc):
    n = norm(rust)
    if (message, n) in NAMES:
        return NAMES[message, n]
    found = PER.get(norm(message), {}).get(n)
    if found:
        return found[0]
    if n in EVERY:
        return max(EVERY[n].items(), key=lambda kv: kv[1])[0]
    if doc and norm(doc) == n and doc[0].islower():
        return doc
    return camel(rust)


def package(path):
    """`api/core/v1` -> `core/v1`, `apimachinery/pkg/apis/meta/v1` -> `meta/v1`, `apimachinery/pkg/api/resource` -> `resource`."""
    parts = os.path.relpath(path, PB).split(os.sep)[:-1]
    skip = {"pkg", "apis", "api", "util", "apimachinery", "apiextensions_apiserver", "kube_aggregator"}
    while parts and parts[0] in skip or parts[:1] == ["metrics"] and "apis" in parts:
        parts = parts[1:]
    return "/".join(parts)


def wanted(pkg):
    return re.fullmatch(r"(\w+/v1|autoscaling/v2|metrics/v1beta1|resource|intstr|runtime)", pkg) and not pkg.startswith(("testapigroup", "imagepolicy", "resource/"))


def main():
    out, groups = [], {}
    for root, _, files in sorted(os.walk(PB)):
        for file in files:
            path = os.path.join(root, file)
            pkg = package(path)
            if file != "mod.rs" or not wanted(pkg):
                continue
            text = open(path).read()
            for m in re.finditer(r'const API_VERSION: &\'static str = "([^"]+)"', text):
                groups[m.group(1)] = pkg
            for m in re.finditer(r"::prost::Message\)\]\npub struct (\w+) \{\n(.*?)\n\}", text, re.S):
                out.append(message(pkg, m.group(1), m.group(2)))
            for m in re.finditer(r"::prost::Message\)\]\npub struct (\w+) \{\}", text):
                out.append(f"{pkg}.{m.group(1)}")
    print("# Made by generate.py from k8s-pb and k8s-openapi: do not edit.")
    for version, pkg in sorted(groups.items()):
        print("group", version, pkg)
    for line in sorted(set(out)):
        print(line)


def message(pkg, name, body):
    fields, doc = [], None
    lines = body.split("\n")
    i = 0
    while i < len(lines):
        line = lines[i].strip()
        i += 1
        if line.startswith("///"):
            word = line[3:].split()
            doc = doc or (word[0].strip("`.,") if word else None)
            continue
        if not line.startswith("#[prost("):
            continue
        attr = line
        decl = lines[i].strip()
        while not decl.endswith(">,"):
            i += 1
            decl += lines[i].strip()
        i += 1
        fields.append(field(pkg, name, attr, decl, doc))
        doc = None
    return " ".join([f"{pkg}.{name}"] + fields)


SCALARS = {"string": "s", "int32": "i", "int64": "i", "bool": "b", "double": "d", "bytes": "y"}


def resolve(pkg, rust):
    """The full name of a message type: a bare one is of this package, a path climbs out of it first."""
    parts = [p for p in rust.split("::") if p != "super"]
    name = parts.pop()
    skip = {"pkg", "apis", "util", "apimachinery", "api", "apiextensions_apiserver"}
    parts = [p for p in parts if p not in skip]
    return ("/".join(parts) or pkg) + "." + name


def field(pkg, message_name, attr, decl, doc):
    tag = re.search(r'tag = "(\d+)"', attr).group(1)
    rust = re.match(r"pub (?:r#)?(\w+):", decl).group(1)
    json = json_name(message_name, rust, doc)
    flags = ""
    m = re.search(r'btree_map = "string, (\w+)"', attr)
    if m:
        flags, kind = "%", m.group(1)
        kind = SCALARS.get(kind) or resolve(pkg, re.search(r"String,\s*([\w:]+),?\s*>", decl).group(1))
    elif "message" in attr:
        kind = resolve(pkg, re.search(r"(?:Option|Vec|Box)<([\w:]+)>+,$", decl.replace(" ", "").replace(",>", ">")).group(1))
        flags = "*" if "repeated" in attr else ""
    else:
        kind = SCALARS[re.match(r"#\[prost\((\w+)", attr).group(1)]
        flags = "*" if "repeated" in attr else ""
    if (message_name, norm(rust)) in INLINE:
        flags = "~"
    if kind == "s" and not flags and (json in KEEP_EMPTY or (message_name, json) in KEEP_EMPTY_IN):
        flags = "!"
    if kind in "ibd" and not flags:
        optional = PER.get(norm(message_name), {}).get(norm(rust), (json, False))[1]
        by_value = BY_VALUE["*"].split() + BY_VALUE.get(message_name, "").split()
        if optional and json in by_value:
            flags = "?"
    return f"{tag}:{json}:{kind}{flags}"


main()

#!/usr/bin/env python3
"""Writes types.txt, what server-side apply must know of Kubernetes' types.

    python3 generate.py <k8s-pb>/src ../../apiserver/protobuf/schema.txt > types.txt

k8s-pb keeps the markers of Kubernetes' .proto files in its comments (+listType, +listMapKey, +mapType, +structType, +default;
+patchStrategy and +patchMergeKey where a list has no type); schema.txt has the JSON names. Both know the tags of the fields. Run it
again when either changes.

A line `kind <apiVersion> <Kind> <Type>` says where a kind's type stands. One line per struct: `<package>.<Type> <member> …`, where a
member is
  name:Type        a struct
  name!            an atomic struct or map: one value with one owner
  name=            a list that is a set
  name[k,l="v"]    a list that is a map with these keys and the default of a missing one; the type of its items follows
A `+` behind the name says that Kubernetes has the member wherever it has the struct, be it empty: nobody adds it.
Members not named are what their JSON shows: scalars, atomic lists, maps with an owner per entry. So are structs that have nothing but
scalars and atomic lists, which therefore have no line.
"""
import os
import re
import sys

PB, SCHEMA = sys.argv[1], sys.argv[2]
SKIP = {"pkg", "apis", "api", "util", "apimachinery", "apiextensions_apiserver", "kube_aggregator"}
# Messages whose JSON is a scalar, or anything at all.
VALUES = {
    "resource.Quantity", "intstr.IntOrString", "meta/v1.Time", "meta/v1.MicroTime", "meta/v1.Duration", "runtime.RawExtension",
    "meta/v1.FieldsV1", "apiextensions/v1.Json", "apiextensions/v1.JsonSchemaPropsOrArray",
    "apiextensions/v1.JsonSchemaPropsOrBool", "apiextensions/v1.JsonSchemaPropsOrStringArray",
}
# Structs that Go holds by value, and lists that it writes though they are empty; by name, or by name in a type.
ALWAYS = {
    "metadata", "spec", "status", "strategy", "updateStrategy", "template", "jobTemplate", "clientConfig", "names",
    "HorizontalPodAutoscalerSpec.scaleTargetRef", "Container.resources", "EphemeralContainer.resources",
    "PersistentVolumeClaimSpec.resources", "PodSpec.containers", "CSINodeSpec.drivers",
}
NOT_ALWAYS = {"ReplicationControllerSpec.template", "WebhookConversion.clientConfig"}
# What has metadata but is never stored.
UNSTORED = {"Binding", "ComponentStatus", "Eviction", "PodStatusResult", "RangeAllocation", "Scale", "JobTemplateSpec", "PodTemplateSpec"}


def package(path):
    parts = os.path.relpath(path, PB).split(os.sep)[:-1]
    while parts and parts[0] in SKIP:
        parts = parts[1:]
    return "/".join(parts)


def markers(doc):
    found = {}
    for name, value in re.findall(r"^\s*/// \+(\w+)=(.*)$", doc, re.M):
        found.setdefault(name, []).append(value.strip())
    return found


def read_markers():
    """By message: its own markers, and those of its fields by tag."""
    messages = {}
    for root, _, files in sorted(os.walk(PB)):
        if "mod.rs" not in files:
            continue
        text = open(os.path.join(root, "mod.rs")).read()
        pkg = package(os.path.join(root, "mod.rs"))
        for m in re.finditer(r"((?:^///[^\n]*\n)*)^#\[derive\([^)]*::prost::Message\)\]\npub struct (\w+) \{(\}|\n.*?^\})", text, re.M | re.S):
            fields = {}
            for f in re.finditer(r"((?:^ +///.*\n)*)^ +#\[prost\([^\]]*tag = \"(\d+)\"", m.group(3), re.M):
                fields[f.group(2)] = markers(f.group(1))
            messages.setdefault(f"{pkg}.{m.group(2)}", (markers(m.group(1)), fields))
    return messages


MARKS = read_markers()
GROUPS, MESSAGES = {}, {}
for line in open(SCHEMA):
    words = line.split()
    if words[0] == "group":
        GROUPS[words[2]] = words[1]
    elif words[0] != "#":
        MESSAGES[words[0]] = [f.split(":") for f in words[1:]]


def fields(name):
    """The members of a message as JSON has them: (name, type, repeated or map or neither, markers)."""
    marks = MARKS.get(name, ({}, {}))[1]
    for tag, json, kind in MESSAGES[name]:
        if kind.endswith("~"):
            yield from fields(kind[:-1])
            continue
        shape = kind[-1] if kind[-1] in "*%" else ""
        yield json, kind.rstrip("*%?!"), shape, marks.get(tag, {})


def is_struct(kind):
    return kind in MESSAGES and kind not in VALUES


def is_atomic(kind):
    return MARKS.get(kind, ({}, {}))[0].get("structType") == ["atomic"]


def list_keys(marks):
    """None for an atomic list, [] for a set, else the keys of its map."""
    kind = marks.get("listType", [""])[0]
    if kind == "map":
        return marks["listMapKey"]
    if kind == "set":
        return []
    if not kind and "merge" in marks.get("patchStrategy", [""])[0].split(","):
        return marks.get("patchMergeKey", [])
    return None


def key(item, name):
    for json, _, _, marks in fields(item):
        if json == name:
            default = marks.get("default", [None])[0]
            return name + ("=" + default if default not in (None, '""') else "")
    raise SystemExit(f"{item} has no key {name}")


def plain(kind):
    """Whether nothing need be said of a type: its members are scalars and atomic lists."""
    if not is_struct(kind):
        return True
    return all(not shape and not is_struct(of) or (shape == "*" and list_keys(marks) is None) for _, of, shape, marks in fields(kind))


def member(owner, json, kind, shape, marks):
    tail = "" if plain(kind) else kind
    place = owner.split(".")[-1] + "." + json
    name = json + "+" if {json, place} & ALWAYS and place not in NOT_ALWAYS else json
    if shape == "*":
        keys = list_keys(marks)
        if keys is None:
            return None
        return f"{name}[{','.join(key(kind, k) for k in keys)}]{tail}" if keys else f"{name}="
    atomic = marks.get("mapType") == ["atomic"] or marks.get("structType") == ["atomic"]
    if shape == "%":
        if tail and not atomic:
            raise SystemExit(f"a map of {kind} needs a notation")
        return f"{json}!" if atomic else None
    if is_struct(kind):
        if atomic or is_atomic(kind):
            return f"{json}!"
        return f"{name}:{kind}" if tail else name if name != json else None
    return None


def main():
    print("# Made by generate.py from k8s-pb and the table of messages: do not edit.")
    todo, done = [], {}
    for name in MESSAGES:
        pkg, kind = name.rsplit(".", 1)
        stored = kind not in UNSTORED and not pkg.startswith("auth") and pkg in GROUPS
        if stored and ["metadata", "meta/v1.ObjectMeta"] in [f[1:] for f in MESSAGES[name]]:
            print("kind", GROUPS[pkg], kind, name)
            todo.append(name)
    while todo:
        name = todo.pop()
        if name in done:
            continue
        members = [m for f in fields(name) if (m := member(name, *f))]
        done[name] = " ".join([name] + sorted(members))
        for m in members:
            target = re.split(r"[:\]}]", m)[-1]
            if target in MESSAGES:
                todo.append(target)
    for name in sorted(done):
        print(done[name])


main()

//! The set of paths and its JSON form.

use super::*;

/// Kubernetes' own golden data of the format.
const GOLDEN: &[&str] = &[
    r#"{"f:aaa":{},"f:aab":{},"f:aac":{},"f:aad":{},"f:aae":{},"f:aaf":{},"k:{\"name\":\"first\"}":{},"k:{\"name\":\"second\"}":{},"k:{\"port\":443,\"protocol\":\"tcp\"}":{},"k:{\"port\":443,\"protocol\":\"udp\"}":{},"v:1":{},"v:2":{},"v:3":{},"v:\"aa\"":{},"v:\"ab\"":{},"v:true":{},"i:1":{},"i:2":{},"i:3":{},"i:4":{}}"#,
    r#"{"f:aaa":{"k:{\"name\":\"second\"}":{"v:3":{"f:aab":{}}},"v:3":{},"v:true":{}},"i:4":{"v:\"aa\"":{"f:aab":{}}}}"#,
    r#"{"f:metadata":{"f:annotations":{".":{},"f:kubectl.kubernetes.io/last-applied-configuration":{}}}}"#,
];

fn set(json: &str) -> FieldSet {
    FieldSet::from_json(&serde_json::from_str(json).unwrap()).unwrap()
}

fn path(text: &[&str]) -> Vec<Element> {
    text.iter().map(|step| Element::parse(step).unwrap().unwrap()).collect()
}

#[test]
fn golden_data_survives() {
    for golden in GOLDEN {
        assert_eq!(set(golden).to_json().to_string(), *golden);
    }
}

#[test]
fn order_and_form_are_canonical() {
    let given =
        r#"{"v:true":{},"i:3":{},"f:b":{"f:c":{},".":{}},"k:{\"protocol\":\"tcp\",\"port\":443}":{},"f:a":{".":{}}}"#;
    let canonical =
        r#"{"f:a":{},"f:b":{".":{},"f:c":{}},"k:{\"port\":443,\"protocol\":\"tcp\"}":{},"v:true":{},"i:3":{}}"#;
    assert_eq!(set(given).to_json().to_string(), canonical);
}

#[test]
fn unknown_steps_are_left_out_and_broken_ones_refused() {
    assert_eq!(set(r#"{"f:aaa":{},"r:aab":{}}"#).to_json().to_string(), r#"{"f:aaa":{}}"#);
    for broken in [
        r#"{"f":{}}"#,
        r#"{"":{}}"#,
        r#"{"v:{":{}}"#,
        r#"{"v:[1]":{}}"#,
        r#"{"i:x":{}}"#,
        r#"{"k:1":{}}"#,
        r#"{"f:a":1}"#,
        "[]",
    ] {
        assert!(FieldSet::from_json(&serde_json::from_str(broken).unwrap()).is_err(), "{broken}");
    }
}

#[test]
fn algebra() {
    // left, right, union, intersection, difference, outside, inside
    let cases = [
        (r#"{"f:a":{}}"#, r#"{"f:b":{}}"#, r#"{"f:a":{},"f:b":{}}"#, "{}", r#"{"f:a":{}}"#, r#"{"f:a":{}}"#, "{}"),
        (r#"{"f:a":{}}"#, r#"{"f:a":{}}"#, r#"{"f:a":{}}"#, r#"{"f:a":{}}"#, "{}", "{}", r#"{"f:a":{}}"#),
        // Parent without child, child without parent.
        (
            r#"{"f:a":{".":{},"f:b":{}}}"#,
            r#"{"f:a":{}}"#,
            r#"{"f:a":{".":{},"f:b":{}}}"#,
            r#"{"f:a":{}}"#,
            r#"{"f:a":{"f:b":{}}}"#,
            "{}",
            r#"{"f:a":{".":{},"f:b":{}}}"#,
        ),
        (
            r#"{"f:a":{".":{},"f:b":{},"f:c":{}}}"#,
            r#"{"f:a":{"f:b":{}}}"#,
            r#"{"f:a":{".":{},"f:b":{},"f:c":{}}}"#,
            r#"{"f:a":{"f:b":{}}}"#,
            r#"{"f:a":{".":{},"f:c":{}}}"#,
            r#"{"f:a":{".":{},"f:c":{}}}"#,
            r#"{"f:a":{"f:b":{}}}"#,
        ),
    ];
    for (left, right, union, intersection, difference, outside, inside) in cases {
        let (left, right) = (set(left), set(right));
        assert_eq!(left.union(&right), set(union));
        assert_eq!(left.intersection(&right), set(intersection));
        assert_eq!(left.difference(&right), set(difference));
        assert_eq!(left.outside(&right), set(outside));
        assert_eq!(left.inside(&right), set(inside));
    }
}

#[test]
fn members_leaves_and_paths() {
    let set = set(r#"{"f:a":{".":{},"f:b":{}},"f:l":{"k:{\"name\":\"c\"}":{".":{},"f:image":{}},"v:\"x\"":{}}}"#);
    assert!(set.has(&path(&["f:a"])) && set.has(&path(&["f:a", "f:b"])));
    assert!(!set.has(&path(&["f:l"])) && !set.has(&[]) && !set.has(&path(&["f:a", "f:b", "f:c"])));
    let paths = |set: &FieldSet| set.paths().iter().map(|path| super::super::path::display(path)).collect::<Vec<_>>();
    assert_eq!(paths(&set), [".a", ".a.b", r#".l[name="c"]"#, r#".l[="x"]"#, r#".l[name="c"].image"#]);
    assert_eq!(paths(&set.leaves()), [".a.b", r#".l[="x"]"#, r#".l[name="c"].image"#]);
}

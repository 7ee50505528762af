//! Laws.

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use super::*;

fn scalar() -> impl Strategy<Value = Scalar> {
    prop_oneof![
        any::<i64>().prop_map(|number| Scalar::Integer(number.into())),
        any::<String>().prop_map(Scalar::Text),
        any::<bool>().prop_map(Scalar::Bool),
        Just(Scalar::Null),
        Just(Scalar::Float("1.5".to_owned())),
    ]
}

fn element() -> impl Strategy<Value = Element> {
    prop_oneof![
        any::<String>().prop_map(Element::Field),
        "[ab.]".prop_map(Element::Field),
        scalar().prop_map(Element::Value),
        any::<i64>().prop_map(Element::Index),
        proptest::collection::btree_map(any::<String>(), scalar(), 1..3)
            .prop_map(|keys| Element::Key(keys.into_iter().collect())),
    ]
}

fn set() -> impl Strategy<Value = FieldSet> {
    vec(vec(element(), 1..4), 0..8).prop_map(|paths| {
        let mut set = FieldSet::default();
        paths.iter().for_each(|path| set.insert(path));
        set
    })
}

fn names() -> impl Strategy<Value = Vec<String>> {
    btree_set("[a-d]", 0..4).prop_flat_map(|names| Just(names.into_iter().collect::<Vec<_>>()).prop_shuffle())
}

/// A configuration of a Deployment with lists and maps of every type.
fn config() -> impl Strategy<Value = Value> {
    let container = (names(), names(), 0..3, "[a-d]").prop_map(|(env, args, image, value)| {
        let env: Vec<Value> = env.iter().map(|name| json!({"name": name, "value": value})).collect();
        json!({"image": format!("i:{image}"), "env": env, "args": args})
    });
    let items = (names(), vec(container, 4)).prop_map(|(names, containers)| {
        let item = |(name, container): (&String, &Value)| {
            let mut item = json!({"name": name});
            merge_into(&mut item, container);
            item
        };
        names.iter().zip(&containers).map(item).collect::<Vec<_>>()
    });
    (names(), names(), items, 0..3, any::<bool>(), names()).prop_map(
        |(labels, finalizers, items, replicas, with, selector)| {
            let map = |names: &[String]| {
                names.iter().map(|name| (name.clone(), json!("x"))).collect::<serde_json::Map<_, _>>()
            };
            let mut config = json!({
                "metadata": {"labels": map(&labels), "finalizers": finalizers},
                "spec": {"selector": {"matchLabels": map(&selector)}, "template": {"spec": {"containers": items}}},
            });
            if with {
                config["spec"]["replicas"] = json!(replicas);
            }
            config
        },
    )
}

const MANAGERS: [&str; 3] = ["one", "two", "three"];

proptest! {
    #[test]
    fn what_is_printed_is_read_again(set in set()) {
        let json = set.to_json();
        prop_assert_eq!(FieldSet::from_json(&json), Ok(set));
    }

    #[test]
    fn sets_are_made_of_what_they_share_and_what_they_do_not(a in set(), b in set()) {
        prop_assert_eq!(a.intersection(&b).union(&a.difference(&b)), a.clone());
        prop_assert_eq!(a.union(&b).difference(&b).union(&b), a.union(&b));
        prop_assert!(a.difference(&b).intersection(&b).is_empty());
        prop_assert_eq!(a.inside(&b).union(&a.outside(&b)), a.clone());
        prop_assert!(a.paths().iter().all(|path| a.has(path) && a.union(&b).has(path)));
    }

    #[test]
    fn applying_again_changes_nothing(steps in vec((0..3_usize, any::<bool>(), config()), 1..6)) {
        let mut live: Option<Value> = None;
        for (second, (manager, update, config)) in steps.into_iter().enumerate() {
            let by = deployment(MANAGERS[manager]).at(second as i64);
            let new = match &live {
                None => by.applies(None, config.clone()),
                Some(live) if update => by.patches(live, config.clone()),
                Some(live) => by.forces(live, config.clone()),
            };
            if !update {
                let again = by.at(100).applies(new.clone(), config.clone());
                prop_assert_eq!(&again, &new);
                let whole = by.whole(&config);
                prop_assert_eq!(merge::merge(by.write().of, &new, &whole), new.clone(), "what is applied is there");
            }
            check_entries(&new)?;
            live = Some(new);
        }
    }

    #[test]
    fn nothing_panics(live in any_json(), applied in any_json(), force in any::<bool>()) {
        let by = deployment("m");
        let (live, applied) = (by.whole(&live), by.whole(&applied));
        let _ = apply(Some(&live), &applied, &by.write(), force);
        let mut new = applied;
        updated(Some(&live), &mut new, &by.write());
    }
}

/// No empty entry, no two of one manager, and nobody owns an item that is not there.
fn check_entries(object: &Value) -> Result<(), TestCaseError> {
    let owned = owned(object);
    let mut who: Vec<&String> = owned.iter().map(|(who, _)| who).collect();
    who.dedup();
    prop_assert_eq!(who.len(), owned.len());
    let there = compare::fields(deployment("").write().of, object);
    for entry in owners(object).entries() {
        prop_assert!(!entry.fields.is_empty());
        let items = entry
            .fields
            .paths()
            .into_iter()
            .filter(|path| matches!(path.last(), Some(Element::Key(_) | Element::Value(_))));
        for path in items {
            prop_assert!(there.has(&path), "{} owns {}", entry.manager, path::display(&path));
        }
    }
    Ok(())
}

/// Values of any shape below names that mean something.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..3).prop_map(Value::from),
        "[a-c]".prop_map(Value::from)
    ];
    let name = prop_oneof![
        Just("metadata"),
        Just("spec"),
        Just("template"),
        Just("containers"),
        Just("env"),
        Just("name"),
        Just("finalizers"),
        Just("managedFields"),
        Just("labels"),
        Just("selector"),
        Just("ports"),
        Just("containerPort"),
        Just("fieldsV1"),
    ];
    leaf.prop_recursive(6, 40, 4, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((name.clone(), inner), 0..4).prop_map(|members| {
                members
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            }),
        ]
    })
}

//! What holds for every kind.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Kinds, created, minimal};

#[test]
fn names_are_distinct() {
    let kinds = || Kinds::builtin().all();
    assert_eq!(kinds().map(|kind| (kind.group, kind.plural)).collect::<BTreeSet<_>>().len(), kinds().count());
    assert_eq!(kinds().map(|kind| (kind.group, kind.kind)).collect::<BTreeSet<_>>().len(), kinds().count());
    let mut words = BTreeSet::new();
    for kind in kinds() {
        assert_eq!(kind.singular, kind.kind.to_lowercase());
        for word in kind.short_names.iter().chain([&kind.plural]) {
            assert!(words.insert(*word), "{word} names two kinds");
        }
    }
}

#[test]
fn columns_and_rows_fit() {
    for kind in Kinds::builtin().all() {
        let columns = kind.columns();
        let names: Vec<usize> = (0..columns.len()).filter(|i| columns[*i].format == "name").collect();
        // An Event's name says nothing; it stands last, and only in wide tables.
        let place = if kind.plural == "events" { columns.len() - 1 } else { 0 };
        assert_eq!(names, [place], "{kind:?}");
        assert_eq!(columns[place].name, "Name");
        for column in columns {
            assert!(matches!(column.kind, "string" | "integer" | "boolean" | "date"), "{kind:?} {}", column.name);
            assert!(!column.description.is_empty(), "{kind:?} {}", column.name);
        }
        for object in [json!({"metadata": {"name": "x"}}), created(kind, minimal::of(kind)).0] {
            let row = kind.row(&object, Timestamp::UNIX_EPOCH);
            assert_eq!(row.len(), columns.len(), "{kind:?}");
            assert!(row.iter().all(|cell| !cell.is_null() && !cell.is_object() && !cell.is_array()), "{kind:?}");
        }
    }
}

#[test]
fn strangers_are_named() {
    for kind in Kinds::builtin().all() {
        let mut wrong = json!({"metadata": {"name": 7}});
        let error = kind.decode(&mut wrong).expect_err("a number is no name");
        assert_eq!(error.field, "metadata.name", "{kind:?}");
        let mut unknown = json!({"metadata": {"name": "x", "nonsense": 1, "creationTimestamp": null}, "zzz": []});
        assert_eq!(kind.decode(&mut unknown).as_deref(), Ok(&["metadata.nonsense".to_owned(), "zzz".to_owned()][..]));
        assert_eq!(unknown["metadata"], json!({"name": "x"}));
        assert_eq!(unknown["apiVersion"], json!(kind.api_version()));
    }
}

/// The typed structs know every field that defaulting and the first status write, and lose nothing.
#[test]
fn a_minimal_object_lives() {
    for kind in Kinds::builtin().all() {
        let (object, errors) = created(kind, minimal::of(kind));
        assert_eq!(errors, Vec::<String>::new(), "{kind:?}");
        let mut again = object.clone();
        assert_eq!(kind.decode(&mut again), Ok(Vec::new()), "{kind:?}");
        assert_eq!(again, object, "{kind:?} passes through its struct");
        kind.default(&mut again);
        assert_eq!(again, object, "{kind:?} is defaulted twice");
        for part in [super::Part::Main, super::Part::Status] {
            let mut same = object.clone();
            kind.prepare_update(&mut same, &object, part);
            assert_eq!(same, object, "{kind:?}: a write of nothing changes nothing");
            assert_eq!(kind.validate(&same, Some(&object)), Vec::new(), "{kind:?}");
        }
        assert_eq!(kind.status, object.get("status").is_some() || kind.plural == "nodes", "{kind:?}");
        let fields = kind.fields(&object);
        for field in kind.selectable {
            assert!(fields.contains_key(*field), "{kind:?} offers {field}");
        }
        let generation = object["metadata"].get("generation").cloned();
        assert_eq!(generation, kind.has_generation().then(|| json!(1)), "{kind:?}");
    }
}

/// A spec that changes counts, in kinds that count.
#[test]
fn generations_count() {
    for (plural, path) in [
        ("jobs", "/spec/parallelism"),
        ("cronjobs", "/spec/failedJobsHistoryLimit"),
        ("statefulsets", "/spec/minReadySeconds"),
        ("podtemplates", "/template/spec/terminationGracePeriodSeconds"),
        ("networkpolicies", "/spec/podSelector"),
    ] {
        let kind = Kinds::builtin().all().find(|kind| kind.plural == plural).expect("a kind");
        let (old, _) = created(kind, minimal::of(kind));
        let mut new = old.clone();
        let place: Vec<&str> = path.split('/').skip(1).collect();
        let value = if path.ends_with("Selector") { json!({"matchLabels": {"a": "b"}}) } else { json!(7) };
        crate::meta::set(&mut new, &place, value);
        kind.prepare_update(&mut new, &old, super::Part::Main);
        assert_eq!(new["metadata"]["generation"], json!(2), "{plural}");
        kind.prepare_update(&mut new, &old, super::Part::Status);
        assert_eq!(new.pointer(path), old.pointer(path), "{plural}: a status says nothing of {path}");
        assert_eq!(new["metadata"]["generation"], Value::from(1), "{plural}");
    }
}

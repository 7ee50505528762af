//! Protobuf bodies that real clients sent, against the JSON they stand for (`tests/golden/requests`).
//!
//! `UPDATE_GOLDEN=1` writes the JSON of new recordings; look at it before you keep it.

use std::path::Path;

#[test]
fn recorded_bodies_become_their_json() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/requests");
    let mut bodies: Vec<_> = std::fs::read_dir(&directory)
        .expect("the golden requests are there")
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "pb"))
        .collect();
    bodies.sort();
    assert!(bodies.len() >= 10, "{} recordings", bodies.len());
    for path in bodies {
        let body = std::fs::read(&path).expect("readable");
        let got = apiserver::protobuf::decode(&body).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let text = serde_json::to_string_pretty(&got).expect("a value") + "\n";
        let json = path.with_extension("json");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&json, &text).expect("writable");
        }
        let want = std::fs::read_to_string(&json).unwrap_or_default();
        assert_eq!(text, want, "{}", path.display());
    }
}

//! What `-f` names: files, directories and standard input, as kubectl reads them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

/// The files of a directory that are read.
const EXTENSIONS: [&str; 3] = ["json", "yaml", "yml"];

/// `-f`, any number of them.
#[derive(Debug, clap::Args)]
pub struct Files {
    /// A YAML or JSON file, or a directory of them; `-` reads standard input
    #[arg(short, long = "filename", value_name = "FILE", value_delimiter = ',')]
    pub filename: Vec<String>,
    /// Of a directory: those below it too
    #[arg(short = 'R', long)]
    recursive: bool,
}

impl Files {
    /// Every object, in the order of the files; those of a directory by name.
    pub fn objects(&self) -> Result<Vec<Value>> {
        let mut objects = Vec::new();
        for name in &self.filename {
            if name == "-" {
                let text = std::io::read_to_string(std::io::stdin()).context("cannot read standard input")?;
                objects.extend(parse(&text, "standard input")?);
            } else if name.starts_with("http://") || name.starts_with("https://") {
                bail!("{name} is not fetched from here: `curl -fsSL {name} | hactl apply -f -` does it");
            } else {
                for file in self.files(Path::new(name))? {
                    let text = std::fs::read_to_string(&file);
                    let text = text.with_context(|| format!("cannot read {}", file.display()))?;
                    objects.extend(parse(&text, &file.display().to_string())?);
                }
            }
        }
        Ok(objects)
    }

    fn files(&self, path: &Path) -> Result<Vec<PathBuf>> {
        if !path.is_dir() {
            return Ok(vec![path.to_owned()]);
        }
        let mut found = Vec::new();
        self.collect(path, &mut found)?;
        if found.is_empty() {
            bail!("{} holds no file that ends in .json, .yaml or .yml", path.display());
        }
        Ok(found)
    }

    fn collect(&self, dir: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
        let entries = std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
        let mut paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<Vec<_>>>()?;
        paths.sort();
        for path in paths {
            if path.is_dir() {
                if self.recursive {
                    self.collect(&path, found)?;
                }
            } else if path.extension().and_then(|end| end.to_str()).is_some_and(|end| EXTENSIONS.contains(&end)) {
                found.push(path);
            }
        }
        Ok(())
    }
}

/// The documents of a YAML or JSON text.
fn parse(text: &str, place: &str) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        let value = Value::deserialize(document).with_context(|| format!("{place} is not valid YAML"))?;
        match value.get("kind").and_then(Value::as_str) {
            _ if value.is_null() => {}
            Some("List") => all.extend(value["items"].as_array().cloned().unwrap_or_default()),
            _ => all.push(value),
        }
    }
    anyhow::ensure!(!all.is_empty(), "{place} holds no object");
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> String {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n")
    }

    #[test]
    fn files_and_directories_are_read_in_order() {
        let dir = tempfile::tempdir().expect("dir");
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("below")).expect("dir");
        std::fs::write(at("b.yml"), named("b")).expect("write");
        std::fs::write(at("a.yaml"), format!("---\n{}---\n{}", named("a1"), named("a2"))).expect("write");
        std::fs::write(at("notes.txt"), "none: of it").expect("write");
        std::fs::write(at("below/c.json"), r#"{"kind":"List","items":[{"metadata":{"name":"c"}}]}"#).expect("write");
        let names = |recursive, files: &[&Path]| -> Vec<String> {
            let filename = files.iter().map(|file| file.display().to_string()).collect();
            let objects = Files { filename, recursive }.objects().expect("objects");
            objects.iter().map(|object| object["metadata"]["name"].as_str().unwrap_or("").to_owned()).collect()
        };
        assert_eq!(names(false, &[dir.path()]), ["a1", "a2", "b"]);
        assert_eq!(names(true, &[dir.path()]), ["a1", "a2", "b", "c"]);
        assert_eq!(names(false, &[&at("below"), &at("b.yml")]), ["c", "b"]);
        std::fs::remove_file(at("below/c.json")).expect("remove");
        let empty = Files { filename: vec![at("below").display().to_string()], recursive: false };
        assert!(empty.objects().expect_err("nothing").to_string().contains("holds no file that ends in"));
    }
}

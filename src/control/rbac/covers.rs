//! Whether rules grant no more than others do, and what they would grant beyond.
//!
//! A rule is taken apart into parts of one group, resource, verb and name each; a part is either wholly covered by one
//! rule of the others or not at all. The result is exact but for `pods/*` and paths, which are compared as they are
//! written.
//!
//! Roles are written by users and the parts of a rule are a product, so both what is taken apart and what is compared has
//! a limit. A rule that one other covers as a whole is never taken apart.

use std::collections::{BTreeMap, BTreeSet};

use super::Rule;
use super::rule::{ALL, url_covers};

/// Parts that rules may be taken apart into.
pub const PARTS_MAX: usize = 20_000;
/// Comparisons of one string, or one part, with the rules that may cover it.
pub const COMPARISONS_MAX: usize = 5_000_000;

/// Rules too many, or with too many entries, to be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the rules have too many entries to be compared with those held: split them over several roles")]
pub struct TooMany;

/// The parts of `wanted` that no rule of `held` covers.
///
/// # Errors
/// When comparing would take too long.
pub fn uncovered(held: &[&Rule], wanted: &[Rule]) -> Result<Vec<Rule>, TooMany> {
    let held: Vec<Held<'_>> = held.iter().map(|rule| Held::of(rule)).collect();
    let each = held.iter().map(|rule| 1 + rule.urls.len()).sum();
    let affordable = |count: usize| count.saturating_mul(each) <= COMPARISONS_MAX;
    if !affordable(wanted.iter().map(entries).sum()) {
        return Err(TooMany);
    }
    let is_covered = |rule: &Rule| held.iter().any(|held| held.covers(rule));
    let open: Vec<&Rule> = wanted.iter().filter(|rule| !is_covered(rule)).collect();
    let count = open.iter().fold(0usize, |count, rule| count.saturating_add(part_count(rule)));
    if count > PARTS_MAX || !affordable(count) {
        return Err(TooMany);
    }
    Ok(open.into_iter().flat_map(parts).filter(|part| !is_covered(part)).collect())
}

/// Parts put together again: those that differ in their verb alone become one rule.
pub fn compact(parts: Vec<Rule>) -> Vec<Rule> {
    let mut whole = Vec::new();
    let mut by_resource: BTreeMap<Rule, Vec<String>> = BTreeMap::new();
    for mut part in parts {
        if part.non_resource_urls.is_empty() {
            let verbs = std::mem::take(&mut part.verbs);
            let present = by_resource.entry(part).or_default();
            for verb in verbs {
                if !present.contains(&verb) {
                    present.push(verb);
                }
            }
        } else {
            whole.push(part);
        }
    }
    whole.extend(by_resource.into_iter().map(|(rule, verbs)| Rule { verbs, ..rule }));
    whole
}

fn entries(rule: &Rule) -> usize {
    [&rule.api_groups, &rule.resources, &rule.non_resource_urls, &rule.resource_names, &rule.verbs]
        .iter()
        .map(|list| list.len())
        .sum()
}

fn part_count(rule: &Rule) -> usize {
    let of_resources = rule
        .api_groups
        .len()
        .saturating_mul(rule.resources.len())
        .saturating_mul(rule.resource_names.len().max(1))
        .saturating_add(rule.non_resource_urls.len());
    of_resources.saturating_mul(rule.verbs.len())
}

fn parts(rule: &Rule) -> Vec<Rule> {
    let one = |text: &String| vec![text.clone()];
    let names: Vec<Vec<String>> = match rule.resource_names.is_empty() {
        true => vec![Vec::new()],
        false => rule.resource_names.iter().map(one).collect(),
    };
    let mut parts = Vec::with_capacity(part_count(rule));
    for group in &rule.api_groups {
        for resource in &rule.resources {
            for verb in &rule.verbs {
                parts.extend(names.iter().map(|name| Rule {
                    api_groups: one(group),
                    resources: one(resource),
                    resource_names: name.clone(),
                    verbs: one(verb),
                    ..Rule::default()
                }));
            }
        }
    }
    for url in &rule.non_resource_urls {
        for verb in &rule.verbs {
            parts.push(Rule { non_resource_urls: one(url), verbs: one(verb), ..Rule::default() });
        }
    }
    parts
}

/// A rule that others are compared with.
struct Held<'a> {
    groups: BTreeSet<&'a str>,
    resources: BTreeSet<&'a str>,
    names: BTreeSet<&'a str>,
    verbs: BTreeSet<&'a str>,
    urls: &'a [String],
}

impl<'a> Held<'a> {
    fn of(rule: &'a Rule) -> Self {
        let set = |list: &'a [String]| list.iter().map(String::as_str).collect();
        Self {
            groups: set(&rule.api_groups),
            resources: set(&rule.resources),
            names: set(&rule.resource_names),
            verbs: set(&rule.verbs),
            urls: &rule.non_resource_urls,
        }
    }

    fn covers(&self, rule: &Rule) -> bool {
        let all = |set: &BTreeSet<&str>, list: &[String]| {
            set.contains(ALL) || list.iter().all(|entry| set.contains(entry.as_str()))
        };
        let names = self.names.is_empty()
            || (!rule.resource_names.is_empty() && rule.resource_names.iter().all(|name| self.names.contains(&**name)));
        names
            && all(&self.verbs, &rule.verbs)
            && all(&self.groups, &rule.api_groups)
            && (self.resources.contains(ALL) || rule.resources.iter().all(|resource| self.covers_resource(resource)))
            && rule.non_resource_urls.iter().all(|url| self.urls.iter().any(|held| url_covers(held, url)))
    }

    fn covers_resource(&self, resource: &str) -> bool {
        let below = || resource.split_once('/').is_some_and(|(_, sub)| self.resources.contains(&*format!("*/{sub}")));
        self.resources.contains(resource) || below()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `verbs;groups;resources;names` or `verbs;/paths`, with commas between entries and `-` for the core group.
    fn rule(text: &str) -> Rule {
        let lists: Vec<Vec<String>> = text
            .split(';')
            .map(|list| list.split(',').filter(|e| !e.is_empty()).map(|e| e.replace('-', "")).collect())
            .collect();
        let list = |i: usize| lists.get(i).cloned().unwrap_or_default();
        match text.split(';').nth(1).is_some_and(|second| second.starts_with('/') || lists.len() == 2) {
            true => Rule { verbs: list(0), non_resource_urls: list(1), ..Rule::default() },
            false => Rule {
                verbs: list(0),
                api_groups: list(1),
                resources: list(2),
                resource_names: list(3),
                ..Rule::default()
            },
        }
    }

    fn rules(texts: &[&str]) -> Vec<Rule> {
        texts.iter().map(|text| rule(text)).collect()
    }

    #[test]
    fn what_is_left_over() {
        type Case = (&'static [&'static str], &'static [&'static str], &'static [&'static str]);
        let cases: &[Case] = &[
            // Kubernetes' own cases.
            (&["get;a;b"], &["get;a;b"], &[]),
            (&["*;*;*"], &["get;a;b", "delete,update;-;c/d;x"], &[]),
            (&["get;a;b"], &["get,list;a;b"], &["list;a;b"]),
            (&["get;a;b"], &["get;a,c;b"], &["get;c;b"]),
            (&["get,list;a;b,c"], &["get,list;a,d;b,c"], &["get,list;d;b", "get,list;d;c"]),
            (&["get;a;b", "list;a;b"], &["get,list;a;b"], &[]),
            (&["get;a;b;x"], &["get;a;b;x"], &[]),
            (&["get;a;b"], &["get;a;b;x"], &[]),
            (&["get;a;b;x"], &["get;a;b"], &["get;a;b"]),
            (&["get;a;b;x,y"], &["get;a;b;y,z"], &["get;a;b;z"]),
            (&["*;a;b"], &["*;a;b"], &[]),
            (&["get;a;b"], &["*;a;b"], &["*;a;b"]),
            // Subresources.
            (&["update;a;*/scale"], &["update;a;foo/scale"], &[]),
            (&["update;a;*/scale"], &["update;a;foo/status,bar/scale"], &["update;a;foo/status"]),
            (&["update;a;foo"], &["update;a;foo/scale"], &["update;a;foo/scale"]),
            (&["update;a;*/scale"], &["update;a;*/scale"], &[]),
            (&["update;a;foo/*"], &["update;a;foo/scale"], &["update;a;foo/scale"]),
            // Paths.
            (&["get;/apis/*"], &["get;/apis/a,/apis/a/*"], &[]),
            (&["get;/apis"], &["get;/apis,/apis/a"], &["get;/apis/a"]),
            (&["get;/apis/*"], &["get;*"], &["get;*"]),
            (&["*;*"], &["get,post;/a,/b/*"], &[]),
            (&["get;/a"], &["get;a;b"], &["get;a;b"]),
            // Nothing held, nothing wanted.
            (&[], &["get;a;b"], &["get;a;b"]),
            (&[], &[], &[]),
            (&["get;a;b"], &[";a;c"], &[]),
        ];
        for (held, wanted, left) in cases {
            let held = rules(held);
            let found = uncovered(&held.iter().collect::<Vec<_>>(), &rules(wanted)).expect("few enough");
            assert_eq!(compact(found), rules(left), "{held:?} {wanted:?}");
        }
    }

    #[test]
    fn too_many_parts_are_refused_before_they_are_made() {
        let many: Vec<String> = (0..200).map(|i| format!("e{i}")).collect();
        let huge = || Rule {
            api_groups: many.clone(),
            resources: many.clone(),
            resource_names: many.clone(),
            verbs: many.clone(),
            ..Rule::default()
        };
        let (all, other) = (rule("*;*;*"), rule("get;a;b"));
        assert_eq!(uncovered(&[&other], &[huge()]), Err(TooMany));
        assert_eq!(uncovered(&[&other, &all], &[huge()]), Ok(Vec::new()), "covered as a whole");
        let held: Vec<&Rule> = std::iter::repeat_n(&all, COMPARISONS_MAX / 800 + 1).collect();
        assert_eq!(uncovered(&held, &[huge()]), Err(TooMany));
    }
}

//! Bounds of a namespace: how much of a thing all its objects may take together.
//!
//! An object says in fields of its header what it takes and what it is. One that bounds the others says how much of what,
//! and which of them it counts:
//!
//! | Field | Value | Says |
//! |---|---|---|
//! | `uses/<thing>` | a number | it takes so much of it |
//! | `class` | words, a comma between | what bounds may tell it apart by |
//! | `bound/<name>` | `<thing> <number>` | together no more than this of it; `name` is what people call this bound |
//! | `bound-scope` | conditions, a space between | it counts objects of which all hold: `a\|b` one of these words, `!a\|b` none of them |
//!
//! Every object takes one of `count/<resource>.<group>` besides. What is taken is added up as objects come and go, so that a
//! bound costs nothing until there is one, and then as many steps as there are classes.
//!
//! **Invariant:** a change that raises what is taken of a thing ends at or below every bound on it. A bound may be set below
//! what is taken already: then that only falls.

use std::cmp::Ordering;
use std::sync::Arc;

use equivalent::{Comparable, Equivalent};
use imbl::OrdMap;

use crate::key::Shared;
use crate::{Header, Key, Refusal, State};

/// Before the name of a thing that the object takes.
pub const USES: &str = "uses/";
/// What the object is.
pub const CLASS: &str = "class";
/// Before the name of a bound that the object sets.
pub const BOUND: &str = "bound/";
/// Which objects its bounds count.
pub const SCOPE: &str = "bound-scope";

/// The first version that holds changes to the bounds of their namespace.
pub const VERSION: u32 = 4;

/// No more than this of one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// As whoever set it calls it.
    pub name: String,
    pub thing: String,
    pub limit: u64,
}

/// What one object bounds, and of which others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// In the order of their names.
    pub all: Vec<Bound>,
    scope: Vec<Condition>,
}

/// Holds of a class with one of the words, or with none of them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Condition {
    none: bool,
    words: Vec<String>,
}

impl Bounds {
    /// Those that a header sets; what is malformed bounds nothing.
    pub fn of(header: &Header) -> Option<Self> {
        let all: Vec<Bound> = header
            .fields
            .iter()
            .filter_map(|(field, value)| {
                let name = field.strip_prefix(BOUND)?.to_owned();
                let (thing, limit) = value.split_once(' ')?;
                Some(Bound { name, thing: thing.to_owned(), limit: limit.parse().ok()? })
            })
            .collect();
        let scope = header.fields.get(SCOPE).unwrap_or("").split_whitespace().map(Condition::parse).collect();
        (!all.is_empty()).then_some(Self { all, scope })
    }

    /// Whether objects of this class are counted.
    pub fn count(&self, class: &str) -> bool {
        self.scope.iter().all(|condition| condition.holds(class))
    }
}

impl Condition {
    fn parse(text: &str) -> Self {
        let words = text.strip_prefix('!');
        Self { none: words.is_some(), words: words.unwrap_or(text).split('|').map(str::to_owned).collect() }
    }

    fn holds(&self, class: &str) -> bool {
        class.split(',').any(|word| self.words.iter().any(|wanted| wanted == word)) != self.none
    }
}

/// The bounds of one object that a change would go beyond.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Exceeded {
    /// The name of the object that sets them.
    #[prost(string, tag = "1")]
    pub by: String,
    #[prost(message, repeated, tag = "2")]
    pub parts: Vec<Beyond>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Beyond {
    /// [`Bound::name`].
    #[prost(string, tag = "1")]
    pub name: String,
    /// What the change would take more.
    #[prost(uint64, tag = "2")]
    pub asked: u64,
    #[prost(uint64, tag = "3")]
    pub taken: u64,
    #[prost(uint64, tag = "4")]
    pub limit: u64,
}

/// What objects of one class take of one thing in one namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot {
    namespace: Arc<str>,
    thing: Arc<str>,
    class: Arc<str>,
}

/// A slot that is looked up.
struct Sought<'a>(&'a str, &'a str, &'a str);

impl Equivalent<Slot> for Sought<'_> {
    fn equivalent(&self, slot: &Slot) -> bool {
        self.compare(slot).is_eq()
    }
}

impl Comparable<Slot> for Sought<'_> {
    fn compare(&self, slot: &Slot) -> Ordering {
        (self.0, self.1, self.2).cmp(&(&slot.namespace, &slot.thing, &slot.class))
    }
}

/// No slot of nothing taken.
pub(crate) type Taken = OrdMap<Slot, u128>;
/// By namespace, in key order.
pub(crate) type Bounding = OrdMap<Arc<str>, Arc<Vec<(Shared, Bounds)>>>;

/// What an object takes, but for its one of [`count`].
pub fn uses(header: &Header) -> impl Iterator<Item = (&str, u64)> + Clone {
    header.fields.iter().filter_map(|(field, amount)| Some((field.strip_prefix(USES)?, amount.parse().ok()?)))
}

/// What every object of this resource takes one of.
pub fn count(key: &Key) -> String {
    match key.group.as_str() {
        "" => format!("count/{}", key.resource),
        group => format!("count/{}.{group}", key.resource),
    }
}

/// What the object is.
pub fn class(header: &Header) -> &str {
    header.fields.get(CLASS).unwrap_or("")
}

impl State {
    /// The objects that bound what this namespace takes, in key order.
    pub fn bounding<'a>(&'a self, namespace: &str) -> impl Iterator<Item = (&'a Key, &'a Bounds)> + use<'a> {
        self.bounding.get(namespace).into_iter().flat_map(|all| all.iter()).map(|(key, bounds)| (&**key, bounds))
    }

    /// What the objects that these bounds count take of a thing.
    pub fn taken(&self, namespace: &str, bounds: &Bounds, thing: &str) -> u64 {
        let from = self.taken.range(Sought(namespace, thing, "")..);
        let of_thing = from.take_while(|(slot, _)| *slot.namespace == *namespace && *slot.thing == *thing);
        let sum: u128 = of_thing.filter(|(slot, _)| bounds.count(&slot.class)).map(|(_, taken)| *taken).sum();
        u64::try_from(sum).unwrap_or(u64::MAX)
    }

    /// What a put of this header would go beyond: of the first object whose bounds refuse it.
    pub fn exceeded(&self, key: &Key, header: &Header) -> Option<Exceeded> {
        self.exceeded_from(key, self.get(key).map(|record| &record.header), header)
    }

    fn exceeded_from(&self, key: &Key, old: Option<&Header>, new: &Header) -> Option<Exceeded> {
        if self.version < VERSION {
            return None;
        }
        let bounding = self.bounding.get(key.namespace.as_str())?;
        let counted = count(key);
        let takes = |header: &Header, thing: &str| {
            let used = uses(header).find(|(used, _)| *used == thing).map_or(0, |(_, amount)| amount);
            u128::from(used) + u128::from(thing == counted)
        };
        bounding.iter().find_map(|(by, bounds)| {
            let takes = |header: Option<&Header>, thing: &str| {
                header.filter(|header| bounds.count(class(header))).map_or(0, |header| takes(header, thing))
            };
            let mut parts = Vec::new();
            for Bound { name, thing, limit } in &bounds.all {
                let asked = takes(Some(new), thing).saturating_sub(takes(old, thing));
                if asked == 0 {
                    continue;
                }
                let taken = self.taken(&key.namespace, bounds, thing);
                if u128::from(taken) + asked > u128::from(*limit) {
                    let asked = u64::try_from(asked).unwrap_or(u64::MAX);
                    parts.push(Beyond { name: name.clone(), asked, taken, limit: *limit });
                }
            }
            (!parts.is_empty()).then(|| Exceeded { by: by.name.clone(), parts })
        })
    }

    /// Refuses what would take more than the namespace's bounds leave.
    pub(crate) fn allows_uses(&self, key: &Key, old: Option<&Header>, new: &Header) -> Result<(), Refusal> {
        self.exceeded_from(key, old, new).map_or(Ok(()), |exceeded| Err(Refusal::Exceeded(exceeded)))
    }

    /// Keeps the sums, and the bounds, when one version of a namespaced object replaces another.
    pub(crate) fn account(&mut self, key: &Shared, old: Option<&Header>, new: Option<&Header>) {
        let unchanged = |old: &Header, new: &Header| class(old) == class(new) && uses(old).eq(uses(new));
        if !old.zip(new).is_some_and(|(old, new)| unchanged(old, new)) {
            if let Some(header) = old {
                self.take_all(key, header, |taken, n| taken - n);
            }
            if let Some(header) = new {
                self.take_all(key, header, |taken, n| taken + n);
            }
        }
        let (old, new) = (old.and_then(Bounds::of), new.and_then(Bounds::of));
        if old != new {
            self.bound(key, new);
        }
    }

    fn take_all(&mut self, key: &Key, header: &Header, change: fn(u128, u128) -> u128) {
        self.take(key, class(header), &count(key), |taken| change(taken, 1));
        for (thing, n) in uses(header) {
            self.take(key, class(header), thing, |taken| change(taken, n.into()));
        }
    }

    fn take(&mut self, key: &Key, class: &str, thing: &str, change: impl FnOnce(u128) -> u128) {
        let sought = Sought(&key.namespace, thing, class);
        match self.taken.get_mut(&sought) {
            Some(taken) => {
                *taken = change(*taken);
                if *taken == 0 {
                    self.taken.remove(&sought);
                }
            }
            None => {
                let taken = change(0);
                if taken != 0 {
                    let slot =
                        Slot { namespace: key.namespace.as_str().into(), thing: thing.into(), class: class.into() };
                    self.taken.insert(slot, taken);
                }
            }
        }
    }

    fn bound(&mut self, key: &Shared, bounds: Option<Bounds>) {
        let namespace = key.namespace.as_str();
        let mut all: Vec<_> = self.bounding.get(namespace).map_or_else(Vec::new, |all| all.to_vec());
        all.retain(|(other, _)| other != key);
        all.extend(bounds.map(|bounds| (key.clone(), bounds)));
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        match all.is_empty() {
            true => drop(self.bounding.remove(namespace)),
            false => drop(self.bounding.insert(namespace.into(), Arc::new(all))),
        }
    }
}

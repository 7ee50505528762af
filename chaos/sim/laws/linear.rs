//! Linearizability of one register at a time: is there an order of all calls in which each takes effect between its
//! beginning and its end and every answer is right?
//!
//! ```text
//!   begin ─▶ open calls            end of X ─▶ every arrangement of open calls that ends with X
//!            Arrangements: what the register holds, which open calls took effect, how many unknown ones were used
//! ```
//! The search goes through the history once, in the order of time, as in Lowe's just-in-time linearization: a call takes effect
//! when some call that ends needs it. So the work grows with the calls that are under way at once, not with the history.
//!
//! It knows nothing of revisions, so it also judges what `order` takes for granted. A call whose outcome is unknown may
//! take effect at any time after its beginning, or never. Those that would do the same are told apart by nobody: they are
//! counted. Of two arrangements that hold the same, the one that has used more unknown calls can do nothing that the other cannot.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Answer, Call, Operation, Record};

/// Arrangements that are tried before the search is given up.
const STEPS_MAX: usize = 20_000_000;
/// Calls on one register that may be under way at once.
const OPEN_MAX: usize = 128;

/// What came of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Good,
    Bad,
    /// Given up; that says nothing of the history.
    Unknown,
}

pub fn histories_are_linearizable(record: &Record) -> Vec<String> {
    let written: HashSet<&str> = record.events.values().filter_map(|seen| seen.value.as_deref()).collect();
    let mut histories: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for one in &record.operations {
        // An unknown write that no follower ever saw did nothing.
        let vanished = one.answer == Answer::Unknown && one.call.writes().is_some_and(|value| !written.contains(value));
        if !vanished && one.call != Call::List {
            histories.entry(&one.name).or_default().push(one);
        }
    }
    let judged = histories.iter().map(|(name, history)| (name, history, judge(history)));
    judged.filter_map(|(name, history, verdict)| Some(words(verdict, name, history.len())?.1)).collect()
}

/// What is to be said of a history that is not good, and whether it is bad.
pub fn words(verdict: Verdict, name: &str, calls: usize) -> Option<(bool, String)> {
    match verdict {
        Verdict::Good => None,
        Verdict::Bad => Some((true, format!("no order explains the {calls} calls on {name}"))),
        Verdict::Unknown => {
            let why = format!(
                "the search for an order of the {calls} calls on {name} was given up: nobody knows whether one explains them"
            );
            Some((false, why))
        }
    }
}

/// A value, by number.
type Held = u32;
const NOTHING: Held = 0;
/// Any value that no call asks for.
const ANY: Held = 1;

/// What a call does to a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Effect {
    Read(Held),
    Write(Held),
    Create(Held),
    Swap(Held, Held),
    Delete,
    /// The condition of the call did not hold.
    NoCreate,
    NoSwap(Held),
    NoDelete,
    /// No state explains the answer.
    Never,
}

impl Effect {
    /// What the register holds afterwards, if this is what happens to it now.
    fn on(self, held: Held) -> Option<Held> {
        let (applies, after) = match self {
            Self::Read(value) => (held == value, held),
            Self::Write(value) => (true, value),
            Self::Create(value) => (held == NOTHING, value),
            Self::Swap(from, to) => (held == from, to),
            Self::Delete => (held != NOTHING, NOTHING),
            Self::NoCreate => (held != NOTHING, held),
            Self::NoSwap(from) => (held != from, held),
            Self::NoDelete => (held == NOTHING, held),
            Self::Never => (false, held),
        };
        applies.then_some(after)
    }

    /// Whether it leaves the register as it is: such a call may take effect as soon as it can.
    fn is_look(self) -> bool {
        matches!(self, Self::Read(_) | Self::NoCreate | Self::NoSwap(_) | Self::NoDelete)
    }
}

/// Numbers for values; those that no call asks for are all the same.
struct Values<'a>(HashMap<&'a str, Held>);

impl<'a> Values<'a> {
    fn of(history: &[&'a Operation]) -> Self {
        let mut values = HashMap::new();
        for one in history {
            let asked = match (&one.call, &one.answer) {
                (Call::Swap(from, _), _) => Some(from.as_str()),
                (Call::Read, Answer::Value(Some(value), _) | Answer::Saw(Some(value))) => Some(value.as_str()),
                _ => None,
            };
            if let Some(asked) = asked {
                let next = ANY + 1 + values.len() as Held;
                values.entry(asked).or_insert(next);
            }
        }
        Self(values)
    }

    fn number(&self, value: &str) -> Held {
        self.0.get(value).copied().unwrap_or(ANY)
    }

    /// None: it says nothing of the register.
    fn effect(&self, one: &Operation) -> Option<Effect> {
        let refused = match &one.answer {
            Answer::Failed | Answer::All(..) => return None,
            Answer::Refused(_) | Answer::Declined => true,
            Answer::Done(_) | Answer::Made | Answer::Value(..) | Answer::Saw(_) | Answer::Unknown => false,
        };
        Some(match (&one.call, refused) {
            (Call::Read, _) => match &one.answer {
                Answer::Value(value, _) | Answer::Saw(value) => {
                    Effect::Read(value.as_deref().map_or(NOTHING, |value| self.number(value)))
                }
                _ => return None,
            },
            (Call::List, _) => return None,
            (Call::Write(value), false) => Effect::Write(self.number(value)),
            (Call::Write(_), true) => Effect::Never,
            (Call::Create(value), false) => Effect::Create(self.number(value)),
            (Call::Create(_), true) => Effect::NoCreate,
            (Call::Swap(from, to), false) => Effect::Swap(self.number(from), self.number(to)),
            (Call::Swap(from, _), true) => Effect::NoSwap(self.number(from)),
            (Call::Delete, false) => Effect::Delete,
            (Call::Delete, true) => Effect::NoDelete,
        })
    }
}

/// One way in which things may have gone so far.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Arrangement {
    held: Held,
    /// The open calls that have taken effect, by place.
    done: u128,
    /// How often each kind of unknown call has been used, in order of kinds; none is 0.
    used: Vec<(u32, u32)>,
}

impl Arrangement {
    fn uses(&self, kind: u32) -> u32 {
        self.used.binary_search_by_key(&kind, |(kind, _)| *kind).map_or(0, |at| self.used[at].1)
    }

    fn using(&self, kind: u32) -> Vec<(u32, u32)> {
        let mut used = self.used.clone();
        match used.binary_search_by_key(&kind, |(kind, _)| *kind) {
            Ok(at) => used[at].1 += 1,
            Err(at) => used.insert(at, (kind, 1)),
        }
        used
    }

    fn uses_no_more_than(&self, used: &[(u32, u32)]) -> bool {
        self.used.iter().all(|(kind, times)| used.iter().any(|(other, most)| other == kind && times <= most))
    }
}

/// Arrangements of which none can do all that another one can.
#[derive(Default)]
struct Front(HashMap<(Held, u128), Vec<Arrangement>>);

impl Front {
    /// False if it adds nothing.
    fn insert(&mut self, one: Arrangement) -> bool {
        let alike = self.0.entry((one.held, one.done)).or_default();
        if alike.iter().any(|known| known.uses_no_more_than(&one.used)) {
            return false;
        }
        alike.retain(|known| !one.uses_no_more_than(&known.used));
        alike.push(one);
        true
    }

    fn into_arrangements(self) -> impl Iterator<Item = Arrangement> {
        self.0.into_values().flatten()
    }
}

#[derive(Default)]
struct Search {
    /// By place; none: free.
    open: Vec<Option<Effect>>,
    /// Kinds of unknown calls, and how many of each have begun.
    unknown: Vec<(Effect, u32)>,
    numbers: HashMap<Effect, usize>,
    /// Those that ask for a value, by it, and the others.
    of: HashMap<Held, Vec<usize>>,
    others: Vec<usize>,
    steps: usize,
}

impl Search {
    /// Lets every open call that leaves things as they are take effect where it can: that never hurts.
    fn look(&self, one: &mut Arrangement) {
        for (place, effect) in self.open.iter().enumerate() {
            if effect.is_some_and(|effect| effect.is_look() && effect.on(one.held).is_some()) {
                one.done |= 1 << place;
            }
        }
    }

    /// The place of a call that begins; none: too many are under way.
    fn begin(&mut self, effect: Effect) -> Option<usize> {
        let place = self.open.iter().position(Option::is_none).unwrap_or(self.open.len());
        if place >= OPEN_MAX {
            return None;
        }
        if place == self.open.len() {
            self.open.push(None);
        }
        self.open[place] = Some(effect);
        Some(place)
    }

    fn begin_unknown(&mut self, effect: Effect) {
        let next = self.unknown.len();
        let number = *self.numbers.entry(effect).or_insert(next);
        if number == next {
            self.unknown.push((effect, 0));
            match effect {
                Effect::Swap(from, _) => self.of.entry(from).or_default().push(number),
                _ => self.others.push(number),
            }
        }
        self.unknown[number].1 += 1;
    }

    /// All arrangements in which the call at this place has taken effect, it the last of them where it had not; none: given up.
    fn end(&mut self, place: usize, all: Vec<Arrangement>) -> Option<Vec<Arrangement>> {
        let mask = 1u128 << place;
        let (mut after, mut tried, mut next) = (Front::default(), Front::default(), Vec::new());
        for mut one in all {
            if one.done & mask == 0 {
                tried.insert(one.clone());
                next.push(one);
            } else {
                one.done &= !mask;
                after.insert(one);
            }
        }
        while let Some(one) = next.pop() {
            self.steps += 1;
            if self.steps > STEPS_MAX {
                return None;
            }
            let mut reach = |held: Held, done: u128, used: Vec<(u32, u32)>| {
                let mut reached = Arrangement { held, done: one.done | done, used };
                self.look(&mut reached);
                if reached.done & mask != 0 {
                    reached.done &= !mask;
                    after.insert(reached);
                } else if tried.insert(reached.clone()) {
                    next.push(reached);
                }
            };
            for (at, effect) in self.open.iter().enumerate() {
                let free = one.done & (1 << at) == 0;
                if let Some(held) = effect.filter(|_| free).and_then(|effect| effect.on(one.held)) {
                    reach(held, 1 << at, one.used.clone());
                }
            }
            for number in self.others.iter().chain(self.of.get(&one.held).into_iter().flatten()) {
                let ((effect, begun), kind) = (self.unknown[*number], *number as u32);
                if let Some(held) = effect.on(one.held).filter(|held| *held != one.held)
                    && one.uses(kind) < begun
                {
                    reach(held, 0, one.using(kind));
                }
            }
        }
        self.open[place] = None;
        Some(after.into_arrangements().collect())
    }
}

pub fn judge(history: &[&Operation]) -> Verdict {
    let values = Values::of(history);
    let effects: Vec<Option<Effect>> = history.iter().map(|one| values.effect(one)).collect();
    let mut times: Vec<(u64, bool, usize)> = Vec::new();
    for (call, one) in history.iter().enumerate().filter(|(call, _)| effects[*call].is_some()) {
        times.push((one.begun, false, call));
        if one.answer != Answer::Unknown {
            times.push((one.ended.unwrap_or(u64::MAX), true, call));
        }
    }
    times.sort_unstable();
    let mut search = Search::default();
    let mut places: HashMap<usize, usize> = HashMap::new();
    let mut all = vec![Arrangement { held: NOTHING, done: 0, used: Vec::new() }];
    for (_, is_end, call) in times {
        let Some(effect) = effects[call] else { continue };
        if is_end {
            let Some(place) = places.remove(&call) else { continue };
            match search.end(place, all) {
                None => return Verdict::Unknown,
                Some(none) if none.is_empty() => return Verdict::Bad,
                Some(after) => all = after,
            }
        } else if history[call].answer == Answer::Unknown {
            search.begin_unknown(effect);
        } else {
            let Some(place) = search.begin(effect) else { return Verdict::Unknown };
            places.insert(call, place);
            all.iter_mut().for_each(|one| search.look(one));
        }
    }
    Verdict::Good
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls as `(begun, ended, call, answer)`.
    fn check(history: &[(u64, u64, Call, Answer)], good: bool) {
        let operations: Vec<Operation> = history
            .iter()
            .map(|(begun, ended, call, answer)| Operation {
                client: "c".into(),
                name: "r".into(),
                call: call.clone(),
                begun: *begun,
                ended: Some(*ended),
                answer: answer.clone(),
            })
            .collect();
        let all: Vec<&Operation> = operations.iter().collect();
        let expected = if good { Verdict::Good } else { Verdict::Bad };
        assert_eq!(judge(&all), expected, "{history:?}");
    }

    fn write(value: &str) -> Call {
        Call::Write(value.into())
    }

    fn swap(from: &str, to: &str) -> Call {
        Call::Swap(from.into(), to.into())
    }

    fn read(value: &str) -> Answer {
        Answer::Value(if value.is_empty() { None } else { Some(value.into()) }, 0)
    }

    #[test]
    fn good_histories_pass() {
        check(&[], true);
        check(&[(0, 1, write("a"), Answer::Done(0)), (2, 3, Call::Read, read("a"))], true);
        // Side by side: either order.
        check(&[(0, 3, write("a"), Answer::Done(0)), (1, 2, Call::Read, read(""))], true);
        check(&[(0, 3, write("a"), Answer::Done(0)), (1, 2, Call::Read, read("a"))], true);
        // Unknown: seen late, or never.
        check(
            &[(0, 1, write("a"), Answer::Unknown), (2, 3, Call::Read, read("")), (4, 5, Call::Read, read("a"))],
            true,
        );
        check(&[(0, 1, write("a"), Answer::Unknown), (2, 3, Call::Read, read(""))], true);
        check(
            &[(0, 1, Call::Create("a".into()), Answer::Done(0)), (2, 3, Call::Create("b".into()), Answer::Refused(0))],
            true,
        );
        check(
            &[
                (0, 1, write("a"), Answer::Done(0)),
                (2, 5, swap("a", "b"), Answer::Done(0)),
                (3, 4, swap("a", "c"), Answer::Refused(0)),
                (6, 7, Call::Delete, Answer::Done(0)),
                (8, 9, Call::Delete, Answer::Refused(0)),
                (10, 11, Call::Read, read("")),
            ],
            true,
        );
    }

    #[test]
    fn known_bad_histories_fail() {
        // A stale read.
        check(&[(0, 1, write("a"), Answer::Done(0)), (2, 3, Call::Read, read(""))], false);
        // A lost write.
        check(
            &[(0, 1, write("a"), Answer::Done(0)), (2, 3, write("b"), Answer::Done(0)), (4, 5, Call::Read, read("a"))],
            false,
        );
        // Two readers see two orders.
        check(
            &[
                (0, 9, write("a"), Answer::Done(0)),
                (0, 9, write("b"), Answer::Done(0)),
                (1, 2, Call::Read, read("a")),
                (3, 4, Call::Read, read("b")),
                (5, 6, Call::Read, read("a")),
            ],
            false,
        );
        // Two swaps of one value.
        check(
            &[
                (0, 1, write("a"), Answer::Done(0)),
                (2, 5, swap("a", "b"), Answer::Done(0)),
                (3, 4, swap("a", "c"), Answer::Done(0)),
            ],
            false,
        );
        // A value out of thin air, and one that comes back.
        check(&[(0, 1, Call::Read, read("x"))], false);
        check(
            &[
                (0, 1, write("a"), Answer::Done(0)),
                (2, 3, Call::Delete, Answer::Done(0)),
                (4, 5, Call::Read, read("a")),
            ],
            false,
        );
        // Refused though nothing stood in the way.
        check(&[(0, 1, Call::Create("a".into()), Answer::Refused(0))], false);
        // An unknown write takes effect after its beginning, not before.
        check(&[(0, 1, Call::Read, read("a")), (2, 3, write("a"), Answer::Unknown)], false);
    }

    /// Every order, one after another.
    fn some_order_explains(history: &[Operation]) -> bool {
        fn go(left: &[&Operation], held: Option<&str>) -> bool {
            if left.iter().all(|one| one.answer == Answer::Unknown) {
                return true;
            }
            (0..left.len()).any(|at| {
                let one = left[at];
                // Whoever had ended before it began comes first.
                let is_next =
                    left.iter().all(|other| other.answer == Answer::Unknown || other.ended >= Some(one.begun));
                let (is_done, after) = match &one.call {
                    Call::Read | Call::List => (true, held),
                    Call::Write(value) => (true, Some(value.as_str())),
                    Call::Create(value) => (held.is_none(), Some(value.as_str())),
                    Call::Swap(from, to) => (held == Some(from), Some(to.as_str())),
                    Call::Delete => (held.is_some(), None),
                };
                let is_right = match &one.answer {
                    Answer::Value(value, _) => value.as_deref() == held,
                    Answer::Done(_) => is_done,
                    Answer::Refused(_) => !is_done,
                    _ => true,
                };
                let rest: Vec<&Operation> =
                    left.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, one)| *one).collect();
                // What is unknown may also never happen, which the end of the search allows for.
                is_next && is_right && go(&rest, if is_done { after } else { held })
            })
        }
        go(&history.iter().collect::<Vec<_>>(), None)
    }

    #[test]
    fn the_search_finds_what_trying_every_order_finds() {
        let mut random = crate::Random::new(1);
        let (mut good, mut bad) = (0, 0);
        for number in 0..20_000 {
            let mut some = |of: &[&str]| random.pick(of).map_or_else(String::new, ToString::to_string);
            let mut drawn = Vec::new();
            for _ in 0..6 {
                let (value, other) = (some(&["a", "b", "c"]), some(&["a", "b", "c"]));
                let call = match some(&["read", "read", "write", "create", "swap", "delete"]).as_str() {
                    "read" => Call::Read,
                    "write" => Call::Write(value.clone()),
                    "create" => Call::Create(value.clone()),
                    "swap" => Call::Swap(other, value.clone()),
                    _ => Call::Delete,
                };
                let answer = match (&call, some(&["done", "done", "refused", "unknown"]).as_str()) {
                    (Call::Read, "refused") => Answer::Value(None, 0),
                    (Call::Read, _) => Answer::Value(Some(value), 0),
                    (Call::Write(_), "done" | "refused") | (_, "done") => Answer::Done(0),
                    (_, "refused") => Answer::Refused(0),
                    _ => Answer::Unknown,
                };
                drawn.push((call, answer));
            }
            let operation = |(call, answer): (Call, Answer)| {
                let begun = random.between(0, 12);
                let ended = Some(begun + random.between(0, 6));
                Operation { client: "c".into(), name: "r".into(), call, begun, ended, answer }
            };
            let history: Vec<Operation> = drawn.into_iter().map(operation).collect();
            let expected = some_order_explains(&history);
            *if expected { &mut good } else { &mut bad } += 1;
            let verdict = judge(&history.iter().collect::<Vec<_>>());
            assert_eq!(verdict, if expected { Verdict::Good } else { Verdict::Bad }, "{number}: {history:#?}");
        }
        assert!(good > 1_000 && bad > 1_000, "both kinds: {good} and {bad}");
    }

    /// The search before this one, which went back and forth over the whole history, was given up here.
    #[test]
    fn a_long_history_with_many_unknown_calls_is_judged_to_its_end() {
        let mut operations = Vec::new();
        let mut one = |begun: u64, ended: u64, call: Call, answer: Answer| {
            let (client, name) = ("c".into(), "r".into());
            operations.push(Operation { client, name, call, begun, ended: Some(ended), answer });
        };
        for round in 0..100 {
            let at = round * 100;
            for client in 0..5 {
                one(at, at + 50, write(&format!("{round}-{client}")), Answer::Done(0));
                one(
                    at,
                    at + 50,
                    swap(&format!("{round}-{client}"), &format!("lost-{round}-{client}")),
                    Answer::Unknown,
                );
            }
            one(at + 10, at + 60, Call::Delete, Answer::Unknown);
            one(at + 70, at + 80, Call::Read, read(&format!("{round}-{}", round % 5)));
            one(at + 90, at + 95, Call::Create("no".into()), Answer::Refused(0));
        }
        let check = |operations: &[Operation]| judge(&operations.iter().collect::<Vec<_>>());
        assert_eq!(check(&operations), Verdict::Good);
        let (client, name) = ("c".into(), "r".into());
        let stale =
            Operation { client, name, call: Call::Read, begun: 20_000, ended: Some(20_001), answer: read("1-1") };
        operations.push(stale);
        assert_eq!(check(&operations), Verdict::Bad);
    }

    #[test]
    fn what_is_not_searched_to_its_end_is_unknown() {
        let crowd: Vec<Operation> = (0..=OPEN_MAX as u64)
            .map(|number| Operation {
                client: format!("c{number}"),
                name: "r".into(),
                call: write("a"),
                begun: 0,
                ended: Some(1),
                answer: Answer::Done(0),
            })
            .collect();
        let verdict = judge(&crowd.iter().collect::<Vec<_>>());
        assert_eq!(verdict, Verdict::Unknown);
        assert!(words(verdict, "r", crowd.len()).is_some_and(|(bad, why)| !bad && why.contains("given up")));
    }
}

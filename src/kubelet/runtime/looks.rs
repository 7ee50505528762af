//! What was last seen of each container, so that looking at a pod costs one listing instead of a question per container.
//!
//! Invariant: a remembered look is used only while the engine's events are heard, only when the listing names the same state, and
//! never when something was told of that container since it began. Not here: what a container looks like (`docker`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::Container;

#[derive(Default)]
struct Inside {
    /// By container id: the engine's word for its state, and what was seen.
    seen: HashMap<String, (String, Container)>,
    /// Counts what was told.
    told: u64,
}

#[derive(Default)]
pub struct Looks {
    inside: Mutex<Inside>,
    listeners: AtomicUsize,
}

/// Somebody hears the events, until this is dropped.
pub struct Listening(Arc<Looks>);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.listeners.fetch_sub(1, Ordering::SeqCst);
        self.0.inside().seen.clear();
    }
}

impl Looks {
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// From now on events are heard; what was seen before may be old.
    pub fn listen(self: &Arc<Self>) -> Listening {
        self.inside().seen.clear();
        self.listeners.fetch_add(1, Ordering::SeqCst);
        Listening(self.clone())
    }

    /// Something happened to the container, or is about to.
    pub fn forget(&self, id: &str) {
        let mut inside = self.inside();
        inside.told += 1;
        inside.seen.remove(id);
    }

    /// The last look, if it still holds.
    pub fn recall(&self, id: &str, state: &str) -> Option<Container> {
        if self.listeners.load(Ordering::SeqCst) == 0 {
            return None;
        }
        self.inside().seen.get(id).filter(|(seen, _)| seen == state).map(|(_, container)| container.clone())
    }

    /// Where the telling stands before a look.
    pub fn begin(&self) -> u64 {
        self.inside().told
    }

    /// Remembers a look that began at `begun`, unless something was told meanwhile.
    pub fn remember(&self, begun: u64, state: &str, container: &Container) {
        let mut inside = self.inside();
        if inside.told == begun {
            inside.seen.insert(container.id.clone(), (state.to_owned(), container.clone()));
        }
    }

    /// Drops the looks at containers that are no more; `ids` are all there are.
    pub fn retain(&self, ids: &[String]) {
        let ids: std::collections::HashSet<&String> = ids.iter().collect();
        self.inside().seen.retain(|id, _| ids.contains(id));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;

    use super::*;
    use crate::runtime::State;

    fn container(id: &str) -> Container {
        Container {
            id: id.to_owned(),
            name: String::new(),
            labels: BTreeMap::new(),
            state: State::Running,
            exit_code: 0,
            oom_killed: false,
            error: String::new(),
            created: Timestamp::UNIX_EPOCH,
            started: None,
            finished: None,
            image: String::new(),
            image_id: String::new(),
            stop_signal: String::new(),
        }
    }

    #[test]
    fn a_look_holds_until_something_is_told() {
        let looks = Arc::new(Looks::default());
        let look = |id: &str| looks.remember(looks.begin(), "running", &container(id));
        look("a");
        assert_eq!(looks.recall("a", "running"), None, "nobody hears the events");
        let listening = looks.listen();
        assert_eq!(looks.recall("a", "running"), None, "seen before they were heard");
        look("a");
        look("b");
        assert!(looks.recall("a", "running").is_some());
        assert_eq!(looks.recall("a", "exited"), None, "the listing knows better");
        looks.forget("a");
        assert_eq!(looks.recall("a", "running"), None);
        assert!(looks.recall("b", "running").is_some());
        let begun = looks.begin();
        looks.forget("c");
        looks.remember(begun, "running", &container("c"));
        assert_eq!(looks.recall("c", "running"), None, "it died during the look");
        looks.retain(&["a".to_owned()]);
        assert_eq!(looks.recall("b", "running"), None);
        look("a");
        drop(listening);
        assert_eq!(looks.recall("a", "running"), None);
    }
}

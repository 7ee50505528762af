//! Places pods on nodes.

use state::{Command, Key, State};

use crate::Context;

/// What became of one pending pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Bound to this node.
    Bind(String),
    /// No node takes it: the reasons as event and condition word them.
    Refuse(String),
}

/// The answer for one pod. The commands put the binding, or the condition when it changed, and the Event.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    pub pod: Key,
    pub decision: Decision,
    pub commands: Vec<Command>,
}

/// Places these pods, with a usage computed from scratch. The leader keeps a [`Scheduler`] instead.
pub fn plan(root: &State, pending: &[Key], cx: &mut Context) -> Vec<Placement> {
    let _ = (root, pending, cx);
    Vec::new()
}

/// The scheduler with what it derived from earlier roots. A fresh one decides the same, only slower.
#[derive(Debug, Default)]
pub struct Scheduler {}

impl Scheduler {
    /// Places every pending pod of `root`. `root` must contain the outcomes of all commands of the plan before.
    /// Pods that nothing changed for since they were refused are left out.
    pub fn plan(&mut self, root: &State, cx: &mut Context) -> Vec<Placement> {
        let _ = (root, cx);
        Vec::new()
    }
}

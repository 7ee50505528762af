//! The table of scenarios: one file and one row each.

mod leader_kill;

use std::pin::Pin;

use anyhow::Result;

use crate::{Context, Report};

type Run = for<'a> fn(&'a mut Context) -> Pin<Box<dyn Future<Output = Result<Report>> + 'a>>;

/// A story of faults under a workload.
pub struct Scenario {
    pub name: &'static str,
    pub about: &'static str,
    pub masters: usize,
    pub nodes: usize,
    pub run: Run,
}

pub const ALL: &[Scenario] = &[Scenario {
    name: "leader-kill",
    about: "the leader is killed again and again under counting writers; nothing acknowledged is lost",
    masters: 3,
    nodes: 0,
    run: |context| Box::pin(leader_kill::run(context)),
}];

//! The masters as consensus has them now, for everyone who must know their addresses: nodes, joiners, the leader's
//! settings.

use rpc::pb::MemberInfo;
use tokio::sync::watch;

/// Cheap to clone; all clones see the same members.
#[derive(Clone)]
pub struct Addresses {
    members: watch::Sender<Vec<MemberInfo>>,
    api: watch::Sender<Vec<String>>,
}

impl Addresses {
    pub fn new(members: Vec<MemberInfo>) -> Self {
        let addresses = Self { members: watch::Sender::default(), api: watch::Sender::default() };
        addresses.set(members);
        addresses
    }

    /// The present members; nobody is woken when they are the same. An empty list (consensus not begun) changes nothing.
    pub fn set(&self, mut present: Vec<MemberInfo>) {
        if present.is_empty() {
            return;
        }
        present.sort_by_key(|member| member.id);
        let api: Vec<String> = present.iter().map(|member| member.api_address.clone()).collect();
        fn replace<T: PartialEq>(known: &mut T, present: T) -> bool {
            let differs = *known != present;
            *known = present;
            differs
        }
        self.members.send_if_modified(|known| replace(known, present));
        self.api.send_if_modified(|known| replace(known, api));
    }

    pub fn members(&self) -> Vec<MemberInfo> {
        self.members.borrow().clone()
    }

    pub fn member(&self, id: Option<u64>) -> Option<MemberInfo> {
        self.members.borrow().iter().find(|member| Some(member.id) == id).cloned()
    }

    /// host:port of all API ports.
    pub fn api(&self) -> Vec<String> {
        self.api.borrow().clone()
    }

    pub fn watch_api(&self) -> watch::Receiver<Vec<String>> {
        self.api.subscribe()
    }
}

//! Who is at the other end of a connection, as its certificate's issuer and names say.

/// The holder of a verified certificate. Port 6444 yields only peers, port 6443 only the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    Peer {
        cluster_id: String,
        epoch: u64,
        member: u64,
    },
    Node {
        cluster_id: String,
        name: String,
        uid: String,
    },
    /// A node whose certificate has ended, lately, or has not begun: it may have a new one, and nothing else.
    LateNode {
        cluster_id: String,
        name: String,
        uid: String,
    },
    User {
        name: String,
        groups: Vec<String>,
    },
    /// No certificate.
    Anonymous,
}

impl Identity {
    /// May do everything (until RBAC decides).
    pub fn is_admin(&self) -> bool {
        matches!(self, Identity::User { groups, .. } if groups.iter().any(|group| group == "system:masters"))
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Identity::Peer { member, .. } => write!(f, "master {member}"),
            Identity::Node { name, .. } => write!(f, "node {name}"),
            Identity::LateNode { name, .. } => write!(f, "node {name}, whose certificate does not hold now,"),
            Identity::User { name, .. } => write!(f, "user {name}"),
            Identity::Anonymous => f.write_str("a client without certificate"),
        }
    }
}

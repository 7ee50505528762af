//! The channels of a `StreamFrame` of exec, attach and connect: what `raft.proto` says in words.

/// To the node.
pub const STDIN: u32 = 0;
pub const RESIZE: u32 = 4;
/// From the node.
pub const DATA: u32 = 1;
pub const STDERR: u32 = 2;
pub const STATUS: u32 = 3;
